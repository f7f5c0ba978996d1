"""Notifying: who hears of a failed run, or of whatever else. Its log always does; whoever is plugged in does too."""

from collections.abc import Callable

import dagster as dg

from heimdall_assets.errors import StorageError

TELL_S = 10.0
Notifier = Callable[[str, str], None]
"""Called with a title and a text."""


def post_webhook(url: str, name: str = "HEIMDALL_WEBHOOK_URL") -> Notifier:
    """Return a notifier that posts ``{"title", "text"}`` as JSON to ``url``, which errors call by its ``name``."""

    def notify(title: str, text: str) -> None:
        import requests

        try:
            answer = requests.post(url, json={"title": title, "text": text}, timeout=TELL_S)
        except requests.RequestException as error:  # its words repeat the address, which may be a secret
            raise StorageError(f"{name}: could not be told ({type(error).__name__})") from None
        if not answer.ok:
            raise StorageError(f"{name}: could not be told (it answers {answer.status_code})")

    return notify


def build_failure_sensor(notify: Notifier | None) -> dg.SensorDefinition:
    """Return the sensor that tells of failed runs: always in its log, and to ``notify`` where there is one.

    What ``notify`` raises fails the tick, which the page shows.
    """

    @dg.run_failure_sensor(
        name="failed_run_sensor", default_status=dg.DefaultSensorStatus.RUNNING, monitor_all_code_locations=False
    )
    def failed_run_sensor(context: dg.RunFailureSensorContext) -> None:
        """Tells of failed runs."""
        title = f"Run {context.dagster_run.run_id} of {context.dagster_run.job_name} failed"
        context.log.error(f"{title}: {context.failure_event.message}")
        if notify is not None:
            notify(title, str(context.failure_event.message))

    return failed_run_sensor
