"""The sensors on a real database and a real Dagster instance."""

import json
import os
import shutil
import time
import traceback
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import dagster as dg
import pytest

from heimdall_assets.definitions import build_definitions, recover_at
from heimdall_assets.defs.notifying import build_failure_sensor, post_webhook
from heimdall_assets.defs.sensors import (
    FINGERPRINT_TAG,
    RETRAINING_TAG,
    build_approval_sensor,
    build_weekly_schedule,
    look,
)
from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import StorageError
from heimdall_assets.pipeline.releases.promotion import promote_release
from heimdall_assets.specs import DatasetSpec, RetrainPolicy, TrainingSpec
from heimdall_assets_tests.homes import TINY, fill_home, make_places, release

EAGER = RetrainPolicy(min_changed_sessions=2, quiet_period_s=0, max_attempts=2)


@pytest.fixture(scope="module")
def released(released_home, tmp_path_factory):
    """A home whose first twelve sessions are approved and released; the other eight are pending again."""
    return released_home(tmp_path_factory.mktemp("sensors") / "home")[0]


def tick(places, instance, cursor=None, policy=EAGER):
    context = dg.build_sensor_context(instance=instance, cursor=cursor, sensor_name="s")
    return build_approval_sensor(policy, places.open_stores, recover_at(places)).evaluate_tick(context)


def finish(instance, request, status):
    """Let a requested run end as ``status``, without running it."""
    run = instance.create_run_for_job(dg.job(name="release")(lambda: None), tags=request.tags)
    event = {
        dg.DagsterRunStatus.FAILURE: dg.DagsterEventType.RUN_FAILURE,
        dg.DagsterRunStatus.SUCCESS: dg.DagsterEventType.RUN_SUCCESS,
        dg.DagsterRunStatus.STARTED: dg.DagsterEventType.RUN_START,
    }[status]
    instance.report_dagster_event(
        dg.DagsterEvent(event_type_value=event.value, job_name=run.job_name, message="as told"), run.run_id
    )
    return run


def test_approval_and_withdrawal_lead_to_a_run_each_and_a_failed_one_is_asked_for_again(released):
    stores = released.open_stores().measurements
    with dg.instance_for_test() as instance:
        first = tick(released, instance)
        assert "nothing changed" in first.skip_message
        assert [event.tags["dagster/data_version"] for event in first.asset_events]  # version of the database
        cursor = first.cursor
        assert not tick(released, instance, cursor).asset_events  # told once

        names = [row["id"] for row in stores.list_sessions()][:3]
        stores.decide(names, ApprovalStatus.REJECTED, "auditor", "wrong site")
        changed = tick(released, instance, cursor)
        assert len(changed.asset_events) == 1
        request = changed.run_requests[0]
        assert "3 withdrawn" in request.tags["heimdall/reason"]
        finish(instance, request, dg.DagsterRunStatus.FAILURE)

        again = tick(released, instance, changed.cursor).run_requests[0]
        assert again.run_key != request.run_key
        assert again.tags[FINGERPRINT_TAG] == request.tags[FINGERPRINT_TAG]
        finish(instance, again, dg.DagsterRunStatus.FAILURE)
        assert "gave up" in tick(released, instance, changed.cursor).skip_message

        stores.decide(names, ApprovalStatus.APPROVED, "auditor", "right after all")
        back = tick(released, instance, changed.cursor)
        # Approved anew: another decision stands behind each, so the released model's evidence is not today's.
        assert "3 decided anew" in back.run_requests[0].tags["heimdall/reason"]
        finish(instance, back.run_requests[0], dg.DagsterRunStatus.STARTED)
        assert "one retraining at a time" in tick(released, instance, back.cursor).skip_message


def test_a_database_that_is_away_for_a_while_loses_nothing(released, tmp_path):
    with dg.instance_for_test() as instance:
        cursor = tick(released, instance).cursor
        path = released.home / "heimdall.db"
        away = tmp_path / "away.db"
        shutil.move(path, away)
        os.mkdir(path)  # not even a new one can be made in its place
        try:
            skipped = tick(released, instance, cursor)  # opening the stores fails, as it would in the page
        finally:
            os.rmdir(path)
            shutil.move(away, path)
        assert "cannot be read now" in skipped.skip_message
        assert skipped.cursor in (None, cursor)
        assert not skipped.run_requests
        assert not tick(released, instance, cursor).asset_events


def test_the_sensor_keeps_its_cursor_small_and_readable(released):
    with dg.instance_for_test() as instance:
        assert set(json.loads(tick(released, instance).cursor)) == {
            "reported",
            "fingerprint",
            "changed_first_s",
            "changed_last_s",
            "reasons",
        }


def test_a_clock_that_is_set_back_holds_no_retraining_up(released, monkeypatch):
    stores = released.open_stores().measurements
    name = stores.list_sessions()[-2]["id"]
    patient = RetrainPolicy(min_changed_sessions=1, quiet_period_s=60)
    true_s = time.time()
    with dg.instance_for_test() as instance:
        monkeypatch.setattr(time, "time", lambda: true_s + 1e8)  # three years ahead
        stores.decide([name], ApprovalStatus.REJECTED, "auditor", "wrong site")
        try:
            ahead = tick(released, instance, policy=patient)
            assert "quiet for 0 s of 60 s" in ahead.skip_message
            monkeypatch.setattr(time, "time", lambda: true_s)
            back = tick(released, instance, ahead.cursor, patient)
            assert "quiet for 0 s of 60 s" in back.skip_message
            monkeypatch.setattr(time, "time", lambda: true_s + 61)
            (request,) = tick(released, instance, back.cursor, patient).run_requests
            finish(instance, request, dg.DagsterRunStatus.SUCCESS)
            monkeypatch.setattr(time, "time", lambda: true_s - 1e8)
            assert not tick(released, instance, back.cursor, patient).run_requests  # once, not for ever
        finally:
            monkeypatch.undo()
            stores.decide([name], ApprovalStatus.APPROVED, "auditor", "right after all")


def test_the_page_shows_what_the_sensor_said_last_and_hears_of_it_only_when_it_changes(released):
    stores = released.open_stores().measurements
    name = stores.list_sessions()[-1]["id"]
    patient = RetrainPolicy(min_changed_sessions=2, quiet_period_s=3600)
    with dg.instance_for_test() as instance:
        first = tick(released, instance)
        (event,) = first.asset_events
        (before,) = event.metadata["sensor"].value.splitlines()[2:]
        stores.decide([name], ApprovalStatus.REJECTED, "auditor", "wrong site")
        try:
            changed = tick(released, instance, first.cursor, patient)
            (event,) = changed.asset_events
            said = event.metadata["sensor"].value.splitlines()
            assert said[0] == "| since (UTC) | what the sensor says |"
            assert "approvals still coming in: quiet for 0 s of 3600 s (0 added, 1 withdrawn" in said[2]
            assert said[3] == before  # the newest stands first
            later = tick(released, instance, changed.cursor, patient)
            assert not later.asset_events  # it waits on: other seconds are no news
            assert "approvals still coming in" in later.skip_message
        finally:
            stores.decide([name], ApprovalStatus.APPROVED, "auditor", "right after all")


def test_a_failure_reaches_the_webhook():
    heard = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self):
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            """Keep the test's output clean."""

    @dg.op
    def break_down():
        raise ValueError("no power")

    @dg.job
    def failing():
        break_down()

    server = HTTPServer(("127.0.0.1", 0), Listener)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        with dg.instance_for_test() as instance:
            result = failing.execute_in_process(instance=instance, raise_on_error=False)
            context = dg.build_run_status_sensor_context(
                sensor_name="failed_run_sensor",
                dagster_instance=instance,
                dagster_run=result.dagster_run,
                dagster_event=result.get_run_failure_event(),
            ).for_run_failure()
            build_failure_sensor(post_webhook(f"http://127.0.0.1:{server.server_port}/"))(context)
    finally:
        server.shutdown()
        server.server_close()
    assert len(heard) == 1
    assert result.run_id in heard[0]["title"]


def test_the_weekly_schedule_is_off_until_somebody_turns_it_on_and_keeps_the_settings(released):
    schedule = build_weekly_schedule(released.open_stores)
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    with dg.instance_for_test() as instance:
        (request,) = schedule.evaluate_tick(dg.build_schedule_context(instance)).run_requests
    assert request.run_config["ops"]["trained_checkpoint"]["config"]["model"]["width"] == 16
    assert request.tags["heimdall/reason"] == "weekly, whether anything changed or not"


CANARY = "a" + "-webhook" + "s-secret"  # put together: a traceback shows lines of this file


def test_a_webhook_that_is_away_fails_the_tick_and_not_silently():
    with dg.instance_for_test() as instance:
        job = dg.job(name="failing")(lambda: None)
        run = instance.create_run_for_job(job)
        event = dg.DagsterEvent(event_type_value="PIPELINE_FAILURE", job_name="failing", message="no power")
        context = dg.build_run_status_sensor_context(
            sensor_name="failed_run_sensor", dagster_instance=instance, dagster_run=run, dagster_event=event
        ).for_run_failure()
        with pytest.raises(StorageError, match="HEIMDALL_WEBHOOK_URL: could not be told") as caught:
            build_failure_sensor(post_webhook(f"http://127.0.0.1:9/{CANARY}"))(context)
        assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_the_page_starts_with_every_sensor_on(tmp_path):
    sensors = build_definitions(make_places(tmp_path)).get_repository_def().sensor_defs
    assert {sensor.name: sensor.default_status for sensor in sensors} == {
        "approved_measurements_sensor": dg.DefaultSensorStatus.RUNNING,
        "failed_run_sensor": dg.DefaultSensorStatus.RUNNING,
        "production_monitoring_sensor": dg.DefaultSensorStatus.RUNNING,
        "production_drift_sensor": dg.DefaultSensorStatus.RUNNING,
    }


def test_a_home_without_anything_waits_and_its_first_run_takes_the_defaults(tmp_path):
    places = make_places(tmp_path)
    with dg.instance_for_test() as instance:
        assert "no session is approved" in tick(places, instance).skip_message
        assert look(places.open_stores()).baseline.specs == ()


def test_retraining_keeps_the_champions_settings(released):
    names = [row["id"] for row in released.open_stores().measurements.list_sessions()][:2]
    released.open_stores().measurements.decide(names, ApprovalStatus.REJECTED, "auditor", "wrong")
    with dg.instance_for_test() as instance:
        (request,) = tick(released, instance).run_requests
    assert request.tags["dagster/max_retries"] == "0"  # the sensor asks again, Dagster does not
    training = request.run_config["ops"]["trained_checkpoint"]["config"]["training"]
    kept = next(spec for spec in TINY if isinstance(spec, TrainingSpec)).dump()
    assert training == {name: value for name, value in kept.items() if value is not None}
    job = build_definitions(released).resolve_job_def("release")
    dg.validate_run_config(job, request.run_config)


def test_a_run_that_somebody_asked_for_in_the_page_is_waited_for(released):
    stores = released.open_stores().measurements
    stores.decide([stores.list_sessions()[5]["id"]], ApprovalStatus.REJECTED, "auditor", "wrong")
    with dg.instance_for_test() as instance:
        instance.create_run_for_job(dg.job(name="__ASSET_JOB")(lambda: None))
        assert "one retraining at a time" in tick(released, instance).skip_message
        assert not tick(released, instance).run_requests
    with dg.instance_for_test() as instance:
        instance.create_run_for_job(dg.job(name="of_somebody_else")(lambda: None))
        assert tick(released, instance).run_requests


@pytest.mark.long  # four releases
def test_the_way_back_to_an_earlier_set_is_a_retraining_too(tmp_path):
    """Approve, release, approve more, release, withdraw those: the set is the first one again, and is asked for."""
    places = fill_home(tmp_path)
    stores = places.open_stores().measurements
    late = [row["id"] for row in stores.list_sessions()][-2:]
    stores.decide(late, ApprovalStatus.REJECTED, "auditor", "not yet")
    with dg.instance_for_test() as instance:
        (first,) = tick(places, instance, policy=RetrainPolicy(quiet_period_s=0)).run_requests
        finish(instance, first, dg.DagsterRunStatus.SUCCESS)
        release(places)
        assert "nothing changed" in tick(places, instance).skip_message

        stores.decide(late, ApprovalStatus.APPROVED, "auditor", "now")
        (second,) = tick(places, instance).run_requests
        finish(instance, second, dg.DagsterRunStatus.SUCCESS)
        assert release(places)["version"] == "v1.0.1"
        assert "nothing changed" in tick(places, instance).skip_message

        stores.decide(late, ApprovalStatus.REJECTED, "auditor", "wrong after all")
        (third,) = tick(places, instance).run_requests
        assert third.tags[FINGERPRINT_TAG] == first.tags[FINGERPRINT_TAG]
        assert third.tags[RETRAINING_TAG] != first.tags[RETRAINING_TAG]
        finish(instance, third, dg.DagsterRunStatus.SUCCESS)
        assert release(places)["version"] == "v1.0.0"  # the same model is released once
        assert "nothing changed" in tick(places, instance).skip_message

        # An experiment beside it changes nothing: what counts is the champion's question.
        release(places, TrainingSpec(max_epochs=1, num_threads=1), DatasetSpec(origin="simulated"))
        assert "nothing changed" in tick(places, instance).skip_message
        promote_release(places.open_stores(), "v1.1.0", "me", "only what is simulated")
        assert look(places.open_stores()).baseline.dataset == DatasetSpec(origin="simulated")
        scoped = tick(places, instance)
        assert "as in v1.1.0 only all campaigns, origin simulated, count" in scoped.skip_message
