"""The second place by commands: releases and promotions post there, absence costs a line, ``verify`` looks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from heimdall_assets.cli import main
from heimdall_assets.defs.witnessing import Witness
from heimdall_assets.merkle import decode_checkpoint
from heimdall_assets.specs import GateSpec
from heimdall_assets.stores.keys import make_key
from heimdall_assets_tests.homes import release
from heimdall_assets_tests.listening import listen_to_posts
from heimdall_assets_tests.servers import find_free_port

Run = Callable[..., Result]
SECRET = "hunter" + "2"


@pytest.fixture(scope="module")
def made(released_home: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return released_home(tmp_path_factory.mktemp("witness") / "home")[0]


@pytest.fixture
def heimdall(made: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("HEIMDALL_HOME", str(made.home))

    def run(*arguments: Any, code: int = 0, **variables: str) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], env=variables)
        assert result.exit_code == code, result.output + repr(result.exception)
        return result

    return run


def list_sizes(folder: Path) -> list[int]:
    return sorted(decode_checkpoint(file.read_text()).size for file in folder.iterdir())


def count_entries(made: Any) -> int:
    checkpoint = made.open_stores().releases.read_checkpoint()
    assert checkpoint is not None
    return int(checkpoint.size)


def test_a_release_and_a_promotion_post_and_verify_looks(made: Any, heimdall: Run, tmp_path: Path):
    second = tmp_path / "second"
    with listen_to_posts() as heard:
        addresses = f"{second}, {heard.url}/{SECRET}"
        witnessed = made.model_copy(update={"witness": (second, f"{heard.url}/{SECRET}")})
        before = count_entries(made)
        made_now = release(witnessed, GateSpec(max_median_m=1e9))
        assert len(heard.posts) == 1  # the release; the champion stayed
        path, _, body = heard.posts[0]
        assert path == f"/{SECRET}"
        checkpoint = decode_checkpoint(body["text"])
        assert checkpoint.size > before
        assert body["title"] == f"Checkpoint of log {checkpoint.log}, number of entries {checkpoint.size}"
        sizes = list_sizes(second)
        assert checkpoint.size in sizes
        assert sizes[-1] == count_entries(made)
        assert release(witnessed, GateSpec(max_median_m=1e9))["version"] == made_now["version"]  # found again: no news
        assert len(heard.posts) == 1
        told = heimdall(
            "models", "promote", made_now["version"], "--by", "ada", "--reason", "tried", HEIMDALL_WITNESS=addresses
        )
        assert told.stderr == ""
        assert len(heard.posts) == 2
        assert list_sizes(second)[-1] == count_entries(made)
        heimdall("models", "rollback", "--by", "ada", "--reason", "worse", HEIMDALL_WITNESS=addresses)
        assert len(heard.posts) == 3
    answer = json.loads(heimdall("verify", "latest", "--json", HEIMDALL_WITNESS=str(second)).stdout)
    assert answer["findings"] == []
    file = max(second.iterdir())
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], str(int(lines[1]) + 1), lines[2], ""]))  # as of a log that was cut since
    found = heimdall("verify", "latest", HEIMDALL_WITNESS=str(second), code=1).stdout
    assert f"log up to the checkpoint in {second}" in found
    assert (
        "which is not how the log begins; heimdall verify latest"
        in heimdall("doctor", HEIMDALL_WITNESS=str(second), code=1).stdout
    )


def test_places_out_of_reach_stop_nothing_cost_a_line_each_and_have_it_the_next_time(
    made: Any, heimdall: Run, tmp_path: Path, bucket: str
):
    mount = tmp_path / "mount"
    away = f"http://user:{SECRET}@127.0.0.1:{find_free_port()}/{SECRET}"
    addresses = f"{mount / 'log'},{bucket}/log,{away}"
    dead = {"HEIMDALL_WITNESS": addresses, "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{find_free_port()}"}
    promote = ("models", "promote", "v1.0.0", "--by", "ada", "--reason")
    result = heimdall(*promote, "again", **dead)
    assert result.stdout == "champion: v1.0.0\n"
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    for line, where in zip(lines, (mount / "log", f"{bucket}/log", "web address 3 of HEIMDALL_WITNESS"), strict=True):
        assert line.startswith(f"Warning: checkpoint not posted to {where}: ")
        assert line.endswith("; the next release or promotion posts it, or heimdall ledger post")
    assert SECRET not in result.output
    posted = json.loads(heimdall("ledger", "post", "--json", code=1, **dead).stdout)
    assert (posted["ok"], [each["is_new"] for each in posted["posted"]]) == (False, [False] * 3)
    notices = json.loads(heimdall("verify", "latest", "--json", **dead).stdout)["findings"]
    assert [(each["severity"], each["kind"]) for each in notices] == [("notice", "witness")] * 2
    doctor = heimdall("doctor", code=1, **dead).stdout
    assert doctor.count("wrong    HEIMDALL_WITNESS: ") == 3
    assert SECRET not in doctor
    mount.mkdir()
    living = {"HEIMDALL_WITNESS": f"{mount / 'log'},{bucket}/log"}
    told = heimdall("doctor", **living).stdout
    assert "and after it" in told
    assert "heimdall ledger post" in told
    assert heimdall(*promote, "once more", **living).stderr == ""
    said = heimdall("ledger", "post", **living).stdout.splitlines()
    assert said == [f"checkpoint is already in {mount / 'log'}", f"checkpoint is already in {bucket}/log"]
    size = count_entries(made)
    told = heimdall("doctor", **living).stdout
    assert told.count(f"last checkpoint of {size} entries") == 2


def test_a_key_that_does_not_count_costs_the_signature_alone(made: Any, heimdall: Run, tmp_path: Path):
    key, second = make_key(tmp_path / "key.pem"), tmp_path / "second"
    variables = {"HEIMDALL_SIGNING_KEY": str(tmp_path / "key.pem"), "HEIMDALL_WITNESS": str(second)}
    said = heimdall("ledger", "post", **variables).stdout
    assert said.startswith(
        f"checkpoint posted to {second}, not signed: HEIMDALL_SIGNING_KEY: found key {key.id}, which"
    )
    made.open_stores().releases.add_key(key.id, key.public_pem, "Office", "ada")
    assert heimdall("ledger", "post", **variables).stdout == f"checkpoint posted to {second}\n"
    assert "\n\u2014 heimdall-assets/log/" in max(second.iterdir()).read_text()


def test_a_web_address_is_looked_at_and_not_told(heimdall: Run):
    with listen_to_posts(405) as heard:
        told = heimdall("doctor", HEIMDALL_WITNESS=f"{heard.url}/{SECRET}").stdout
        assert f"web address 1, {heard.url}: answers 405 to HEAD" in told
        assert SECRET not in told
        assert heard.posts == []
        failed = heimdall("ledger", "post", HEIMDALL_WITNESS=heard.url, code=1).stdout
        assert "web address 1 of HEIMDALL_WITNESS: could not be told (it answers 405)" in failed


def test_without_a_second_place_nothing_is_posted(heimdall: Run, made: Any):
    assert Witness().post(made.open_stores()) == []
    assert "HEIMDALL_WITNESS: found none, expected a folder" in heimdall("ledger", "post", code=2).stderr


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("a,,b", "found an empty address"),
        ("ftp://host/x", "found an address of ftp://"),
        ("https://", "expected an address of http:// or https://"),
        ("s3://key:secret@bucket/x", "found keys in an s3:// address"),
    ],
)
def test_an_address_that_is_none_is_refused(heimdall: Run, address: str, said: str):
    failed = heimdall("ledger", "post", code=2, HEIMDALL_WITNESS=address).stderr
    assert failed.startswith("Error: HEIMDALL_WITNESS: ")
    assert said in failed
    assert "secret" not in failed


def test_a_web_address_is_never_shown():
    assert SECRET not in repr(Witness((Path("/srv/second"), f"https://hooks.example/{SECRET}")))
