"""Alerts reach people and ask for a retraining, each once; who cannot be told is tried again and fails no run."""

import json
import traceback
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import dagster as dg
import pytest

from heimdall_assets.definitions import open_channels
from heimdall_assets.defs.monitoring.sensors import MAX_TELLS, build_drift_sensor, build_monitoring_sensor
from heimdall_assets.defs.notifying import join_channels, post_webhook, send_mail, tell_each
from heimdall_assets.defs.sensors import RETRAINING_TAG, look
from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import InvalidSetting, StorageError
from heimdall_assets.kinds import JSON_MEDIA_TYPE, PRODUCTION_MONITORING
from heimdall_assets.pipeline.monitoring.judging import judge_new_sessions
from heimdall_assets.pipeline.monitoring.watching import watch_production
from heimdall_assets.pipeline.stages.approved_measurements import take_snapshot
from heimdall_assets.places import read_places
from heimdall_assets.specs import DatasetSpec, MonitoringSpec, RetrainPolicy
from heimdall_assets_tests.defs.mail_server import make_certificate, run_mail_server
from heimdall_assets_tests.homes import make_places

CANARY = "a" + "-mail" + "s-secret"  # put together: a traceback shows lines of this file
DRIFT = {"kind": "drift", "line": "receiver b: level -15.2 dB against the others' since training, expected within 3 dB"}
VOLUME = {"kind": "volume", "line": "40% of the champion's sessions withdrawn, expected at most 20%"}


class Hook(HTTPServer):
    """A webhook that keeps what it heard, and answers with ``status``."""

    def __init__(self):
        self.heard, self.status = [], 204
        outer = self

        class Listener(BaseHTTPRequestHandler):
            def do_POST(self):
                outer.heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *_):
                """Keep the test's output clean."""

        super().__init__(("127.0.0.1", 0), Listener)
        Thread(target=self.serve_forever, daemon=True).start()


@pytest.fixture
def hook():
    server = Hook()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def released(released_home, tmp_path):
    """A home with a champion, two of whose sessions are withdrawn since."""
    places, _ = released_home(tmp_path / "home")
    stores = places.open_stores()
    names = [row["id"] for row in stores.measurements.list_sessions()][:2]
    stores.measurements.decide(names, ApprovalStatus.REJECTED, "auditor", "wrong site")
    return places


def monitor(places, instance, alerts):
    """Let a monitoring with these alerts be the latest."""
    stores = places.open_stores()
    snapshot = take_snapshot(stores, DatasetSpec())[0].manifest
    found = watch_production(stores, snapshot, judge_new_sessions(stores, snapshot).manifest, MonitoringSpec()).manifest
    manifest = found.model_copy(update={"summary": {**found.summary, "alerts": alerts}})
    stores.objects.put_bytes(manifest.encode(), JSON_MEDIA_TYPE)
    instance.report_runless_asset_event(
        dg.AssetMaterialization(PRODUCTION_MONITORING, tags={"dagster/data_version": manifest.digest})
    )


def tick(places, instance, channels, cursor=None):
    context = dg.build_sensor_context(instance=instance, cursor=cursor, sensor_name="d")
    return build_drift_sensor(RetrainPolicy(), places.open_stores, channels).evaluate_tick(context)


def test_an_alert_is_told_by_webhook_and_mail_and_asks_for_a_retraining_once(released, hook):
    with run_mail_server() as mail, dg.instance_for_test() as instance:
        channels = {
            "HEIMDALL_WEBHOOK_URL": post_webhook(f"http://127.0.0.1:{hook.server_port}/"),
            "HEIMDALL_MAIL": send_mail(f"smtp://127.0.0.1:{mail.port}?from=h@lab.example&to=a@x.example,b@x.example"),
        }
        assert "no new alert" in tick(released, instance, channels).skip_message
        monitor(released, instance, [DRIFT])
        first = tick(released, instance, channels)
        (request,) = first.run_requests
        assert request.tags["heimdall/reason"].startswith("drift: receiver b: level -15.2 dB")
        assert request.tags[RETRAINING_TAG] == look(released.open_stores()).step
        assert request.run_config["ops"]["trained_checkpoint"]["config"]["model"]["width"] == 16  # the champion's
        assert [told["text"] for told in hook.heard] == [f"drift: {DRIFT['line']}"]
        (message,) = mail.messages
        assert "Subject: Heimdall: 1 new alert of the model in use" in message
        assert "receiver b: level -15.2 dB" in message
        assert [line for line in mail.commands if line.upper().startswith("RCPT")] == [
            "rcpt TO:<a@x.example>", "rcpt TO:<b@x.example>"]  # fmt: skip

        again = tick(released, instance, channels, first.cursor)
        assert not again.run_requests
        other = {**DRIFT, "line": DRIFT["line"].replace("15.2", "15.7")}  # the same alert of a later evaluation
        monitor(released, instance, [other])
        assert not tick(released, instance, channels, again.cursor).run_requests
        assert (len(hook.heard), len(mail.messages)) == (1, 1)


def test_who_cannot_be_told_is_tried_again_and_nothing_fails(released, hook):
    hook.status = 500
    channels = {"HEIMDALL_WEBHOOK_URL": post_webhook(f"http://127.0.0.1:{hook.server_port}/{CANARY}")}
    with dg.instance_for_test() as instance:
        monitor(released, instance, [DRIFT])
        first = tick(released, instance, channels)
        assert len(first.run_requests) == 1  # it is asked for whoever hears of it
        second = tick(released, instance, channels, first.cursor)
        assert "nobody could tell HEIMDALL_WEBHOOK_URL yet" in second.skip_message
        hook.status = 204
        third = tick(released, instance, channels, second.cursor)
        assert third.skip_message == "no new alert"
        assert len(hook.heard) == 3
        assert CANARY not in first.cursor + second.cursor + third.cursor
        tick(released, instance, channels, third.cursor)
        assert len(hook.heard) == 3


def test_it_gives_up_after_a_while(released):
    channels = {"HEIMDALL_MAIL": send_mail(f"smtp://u:{CANARY}@127.0.0.1:9?from=a@b.example&to=a@b.example")}
    with dg.instance_for_test() as instance:
        monitor(released, instance, [DRIFT])
        cursor = None
        for _ in range(MAX_TELLS):
            cursor = tick(released, instance, channels, cursor).cursor
        assert json.loads(cursor)["waiting"] == []
        assert CANARY not in cursor


def test_what_was_withdrawn_is_told_and_left_to_the_other_sensor(released, hook):
    channels = {"HEIMDALL_WEBHOOK_URL": post_webhook(f"http://127.0.0.1:{hook.server_port}/")}
    with dg.instance_for_test() as instance:
        monitor(released, instance, [VOLUME])
        assert not tick(released, instance, channels).run_requests
    assert len(hook.heard) == 1


def test_a_run_under_way_is_waited_for(released):
    with dg.instance_for_test() as instance:
        run = instance.create_run_for_job(dg.job(name="release")(lambda: None))
        event = dg.DagsterEvent(
            event_type_value=dg.DagsterEventType.RUN_START.value, job_name="release", message="as told"
        )
        instance.report_dagster_event(event, run.run_id)
        monitor(released, instance, [DRIFT])
        waiting = tick(released, instance, {})
        assert "waits for a run under way; then: drift" in waiting.skip_message
        instance.report_run_canceled(instance.get_run_by_id(run.run_id))
        assert len(tick(released, instance, {}, waiting.cursor).run_requests) == 1


def watch(places, instance, cursor=None, quiet_s=0.0):
    context = dg.build_sensor_context(instance=instance, cursor=cursor, sensor_name="m")
    return build_monitoring_sensor(MonitoringSpec(alpha=0.02), quiet_s, places.open_stores).evaluate_tick(context)


def test_what_was_approved_since_is_watched_once(released):
    with dg.instance_for_test() as instance:
        waiting = watch(released, instance, quiet_s=60.0)
        assert "approvals still coming in" in waiting.skip_message
        (request,) = watch(released, instance, waiting.cursor).run_requests
        assert request.run_config["ops"][PRODUCTION_MONITORING]["config"]["alpha"] == 0.02
        assert request.tags["heimdall/reason"] == "approved set changed under champion v1.0.0"
        monitor(released, instance, [])
        assert watch(released, instance).skip_message == "what is approved now was watched"


def test_a_home_without_a_champion_or_with_its_database_away_waits(tmp_path):
    places = make_places(tmp_path / "home")

    def away():
        raise StorageError("database: cannot be reached")

    with dg.instance_for_test() as instance:
        assert "no champion yet" in watch(places, instance).skip_message
        context = dg.build_sensor_context(instance=instance, sensor_name="m")
        for sensor in (
            build_monitoring_sensor(MonitoringSpec(), 0.0, away),
            build_drift_sensor(RetrainPolicy(), away, {}),
        ):
            assert "cannot be read now" in sensor.evaluate_tick(context).skip_message


# --- e-mail


def test_a_password_goes_over_an_encrypted_connection_alone(tmp_path, monkeypatch):
    certificate, context = make_certificate(tmp_path)
    with run_mail_server() as plain:
        address = f"smtp://me:{CANARY}@localhost:{plain.port}?from=a@b.example&to=c@d.example"
        with pytest.raises(StorageError, match=r"HEIMDALL_MAIL: could not be told.*needs an encrypted") as caught:
            send_mail(address)("title", "text")
        assert plain.logins == []
        assert CANARY not in "".join(traceback.format_exception(caught.value))
    with run_mail_server(context) as encrypted:
        address = f"smtp://me:{CANARY}@localhost:{encrypted.port}?from=a@b.example&to=c@d.example"
        with pytest.raises(StorageError, match="SSLCertVerificationError"):  # nobody vouches for it
            send_mail(address)("title", "text")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        send_mail(address)("one\ntitle", "text")
        assert encrypted.logins == [f"\0me\0{CANARY}"]
        assert "Subject: one title" in encrypted.messages[0]


def test_a_receiver_that_is_refused_is_told_of(tmp_path):
    with run_mail_server(refuses=frozenset({"c@d.example"})) as mail:
        address = f"smtp://127.0.0.1:{mail.port}?from=a@b.example&to=c@d.example,e@d.example"
        with pytest.raises(StorageError, match="it refuses a receiver, others were told"):
            send_mail(address)("title", "text")
        assert len(mail.messages) == 1
        alone = f"smtp://127.0.0.1:{mail.port}?from=a@b.example&to=c@d.example"
        with pytest.raises(StorageError, match="SMTPRecipientsRefused"):
            send_mail(alone)("title", "text")


def test_one_channel_that_is_away_keeps_no_other_from_hearing(hook):
    channels = {
        "HEIMDALL_MAIL": send_mail("smtp://127.0.0.1:9?from=a@b.example&to=c@d.example"),
        "HEIMDALL_WEBHOOK_URL": post_webhook(f"http://127.0.0.1:{hook.server_port}/"),
    }
    assert tell_each(channels, "t", "x") == {
        "HEIMDALL_MAIL": "HEIMDALL_MAIL: could not be told (ConnectionRefusedError)"
    }
    assert len(hook.heard) == 1
    with pytest.raises(StorageError, match="HEIMDALL_MAIL"):
        join_channels(channels)("t", "x")
    assert join_channels({}) is None


@pytest.mark.parametrize(
    "text",
    [
        "http://lab.example?from=a@b.example&to=c@d.example",
        f"smtp://me:{CANARY}@lab.example",
        "smtp://lab.example?from=a@b.example",
        "smtp://lab.example?from=a@b.example&to=",
        "smtp://lab.example?from=a@b.example&to=c@d.example&from=x@y.example",
        "smtp://lab.example?from=a@b.example&to=c@d.example%0d%0aBcc:x@y.example",
        "smtp://?from=a@b.example&to=c@d.example",
    ],
)
def test_an_address_of_mail_that_is_none_is_refused_without_repeating_it(text):
    with pytest.raises(InvalidSetting, match=r"HEIMDALL_MAIL: found something else, expected smtp://HOST") as caught:
        read_places({"HEIMDALL_MAIL": text})
    assert CANARY not in str(caught.value)


def test_the_variables_say_who_hears():
    places = read_places(
        {"HEIMDALL_MAIL": f"smtps://me:{CANARY}@lab.example?from=a@b.example&to=c@d.example",
         "HEIMDALL_MONITORING": '{"alpha": 0.05}'}
    )  # fmt: skip
    assert set(open_channels(places)) == {"HEIMDALL_MAIL"}
    assert places.monitoring.alpha == 0.05
    assert CANARY not in repr(places) + str(places.share())
