"""The sensors on a real database and a real Dagster instance."""

import json
import os
import shutil
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import dagster as dg
import pytest

from heimdall_assets.defs.sensors import (
    FINGERPRINT_TAG,
    build_approval_sensor,
    build_failure_sensor,
    post_webhook,
    weekly_retraining,
)
from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.places import prepare_dagster_home
from heimdall_assets.specs import RetrainPolicy
from heimdall_assets_tests.homes import SIMULATION, fill_home, release

EAGER = RetrainPolicy(min_changed_sessions=2, quiet_period_s=0, max_attempts=2)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A home whose first twelve sessions are approved and released; the other eight are pending again."""
    places = fill_home(tmp_path_factory.mktemp("sensors"), SIMULATION)
    release(places)
    return places


def tick(places, instance, cursor=None, policy=EAGER):
    context = dg.build_sensor_context(
        instance=instance, cursor=cursor, resources={"stores": places.open_stores()}, sensor_name="s"
    )
    return build_approval_sensor(policy).evaluate_tick(context)


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
        stores = released.open_stores()
        path = released.home / "heimdall.db"
        stores.measurements.close()
        away = tmp_path / "away.db"
        shutil.move(path, away)
        os.mkdir(path)  # not even a new one can be made in its place
        try:
            context = dg.build_sensor_context(
                instance=instance, cursor=cursor, resources={"stores": stores}, sensor_name="s"
            )
            skipped = build_approval_sensor(EAGER).evaluate_tick(context)
        finally:
            os.rmdir(path)
            shutil.move(away, path)
        assert "cannot be read now" in skipped.skip_message
        assert skipped.cursor in (None, cursor)
        assert not tick(released, instance, cursor).asset_events


def test_the_sensor_keeps_its_cursor_small_and_readable(released):
    with dg.instance_for_test() as instance:
        assert set(json.loads(tick(released, instance).cursor)) == {
            "fingerprint",
            "changed_first_s",
            "changed_last_s",
        }


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


def test_the_weekly_schedule_is_off_until_somebody_turns_it_on(released):
    assert weekly_retraining.default_status == dg.DefaultScheduleStatus.STOPPED
    assert prepare_dagster_home(released).joinpath("dagster.yaml").exists()
