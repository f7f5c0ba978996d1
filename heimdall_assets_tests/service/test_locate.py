"""Answers: what the service says is what the released model says, from JSON and from files alike."""

import dataclasses
import io
import json

import numpy as np
import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.formats import Stated
from heimdall_assets.inference import Receiver
from heimdall_assets.serving.answered import Located, Models, Shadows, State
from heimdall_assets.serving.bodies import AskedReceiver, AskedRecording
from heimdall_assets_tests.service.cases import make_recorded, make_session, measure_m


def test_a_session_of_arrivals_is_located_as_by_the_model_itself(running):
    status, said = running.client.locate(make_session())
    assert status == 200
    assert (said["version"], said["chosen_by"], said["refused"]) == ("v1.0.0", "champion", [])
    assert measure_m(said) < 100.0  # arrivals to a tenth of a microsecond: 30 m
    predictor = running.service.predictors.take("v1.0.0")
    alone = predictor.locate([Receiver(**one) for one in make_session()["receivers"]]).describe()
    assert {name: value for name, value in said.items() if name != "chosen_by"} == json.loads(json.dumps(alone))
    Located.model_validate(said)


def test_levels_and_bearings_are_answered_too(running):
    bearings = make_session()
    for one in bearings["receivers"]:
        one.pop("arrival_unix_ns")
        one.pop("arrival_sigma_s")
        one |= {"bearing_deg": 90.0, "bearing_sigma_deg": 3.0}
    for session in (bearings, {"receivers": [{**one, "bearing_deg": None, "bearing_sigma_deg": None} for one in
                                             bearings["receivers"]]}):  # fmt: skip
        status, said = running.client.locate(session)
        assert status == 200
        Located.model_validate(said)


def test_files_are_answered_as_the_command_answers_them(running):
    stores = running.service.stores
    session, files = make_recorded(stores)
    status, said = running.client.locate_form(session, files)
    assert status == 200, said
    assert said["refused"] == []
    stored = stores.measurements.list_sessions()[0]["id"]
    home = stores.scratch.parent
    done = CliRunner().invoke(
        main, ["predict", "champion", stored, "--json"], env={"HEIMDALL_HOME": str(home), "HEIMDALL_TRACKING": "off"}
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert set(said) - {"chosen_by"} <= set(told)
    for name in ("latitude", "longitude", "sigma_east_m", "sigma_north_m"):
        assert said[name] == pytest.approx(told[name], rel=1e-6)
    assert said["version"] == told["version"]


def test_headerless_samples_are_read_as_they_are_said_to_be_written(running):
    session, files = make_recorded(running.service.stores)
    session_of_arrays = json.loads(json.dumps(session))
    raw = {}
    for one in session["receivers"]:
        part = one["recording"]["part"]
        raw[part] = np.load(io.BytesIO(files[part])).astype("<c8").tobytes()
        one["recording"] |= {"format": "raw-cf32"}
    status, said = running.client.locate_form(session, raw, ".bin")
    assert status == 200, said
    expected = running.client.locate_form(session_of_arrays, files)[1]
    assert said["latitude"] == pytest.approx(expected["latitude"])


def test_the_session_may_be_a_file_of_its_form(running):
    session, files = make_recorded(running.service.stores)
    body = json.dumps(session).encode()
    parts = [("session", "session.json", body), *((name, f"{name}.npy", data) for name, data in files.items())]
    text = b"".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n\r\n'.encode() + data + b"\r\n"
        for name, file, data in parts
    )
    status, said, _ = running.client.ask(
        "/v1/locate", "POST", text + b"--b--\r\n", {"Content-Type": 'multipart/form-data; boundary="b"'}
    )
    assert status == 200, said


def test_fields_of_a_receiver_are_those_of_the_model_s_own():
    assert list(AskedReceiver.model_fields) == [field.name for field in dataclasses.fields(Receiver)]
    stated = {field.name for field in dataclasses.fields(Stated)} - {"frequency_hz"}  # the receiver says that
    assert set(AskedRecording.model_fields) == stated | {"part", "format"}


def test_who_asks_for_the_state_is_told(running):
    client = running.client
    for path, model in (("/v1/models", Models), ("/v1/shadow", Shadows), ("/healthz", State), ("/readyz", State)):
        status, said, headers = client.ask(path)
        assert status == 200
        model.model_validate(said)
        assert headers["content-type"] == "application/json"
    assert client.ask("/v1/models")[1]["champion"] == "v1.0.0"


def test_metrics_count_requests_by_status_and_model(running):
    client = running.client
    for session in (make_session(), make_session(), b""):
        client.locate(session)
    status, text, headers = client.ask("/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    counted = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    right = 'heimdall_requests_total{chosen_by="champion",route="/v1/locate",status="200",version="v1.0.0"}'
    wrong = 'heimdall_requests_total{chosen_by="none",route="/v1/locate",status="400",version="none"}'
    assert float(counted[right]) >= 2
    assert float(counted[wrong]) >= 1
    assert float(counted['heimdall_refusals_total{route="/v1/locate",status="400"}']) == float(counted[wrong])
    assert counted["heimdall_in_flight"] == "1.0"  # this one


def test_the_document_describes_every_address_and_every_reference_leads_somewhere(running):
    document = running.client.ask("/openapi.json")[1]
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {
        "/v1/locate", "/v1/models", "/v1/shadow", "/healthz", "/readyz", "/metrics", "/openapi.json",
    }  # fmt: skip
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["responses"], (path, method)
            assert all("description" in answer for answer in operation["responses"].values())

    def follow(value):
        if isinstance(value, dict):
            if "$ref" in value:
                found = document
                for part in value["$ref"].removeprefix("#/").split("/"):
                    found = found[part]
            for each in value.values():
                follow(each)
        elif isinstance(value, list):
            for each in value:
                follow(each)

    follow(document)
    receiver = document["components"]["schemas"]["AskedReceiver"]
    assert receiver["additionalProperties"] is False
    assert receiver["properties"]["latitude"] == {
        "description": "degrees of WGS-84", "maximum": 90.0, "minimum": -90.0, "title": "Latitude", "type": "number",
    }  # fmt: skip
    import jsonschema

    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    located = {**document["components"]["schemas"]["Located"], "components": document["components"]}
    jsonschema.validate(running.client.locate(make_session())[1], located)
    asked = {**document["components"]["schemas"]["AskedSession"], "components": document["components"]}
    jsonschema.validate(make_session(), asked)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(make_session(latitude=91.0), asked)
