"""Notifying: who hears of a failed run, or of whatever else. Its log always does; whoever is plugged in does too."""

import smtplib
import ssl
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from urllib.parse import parse_qs, unquote, urlsplit

import dagster as dg

from heimdall_assets.errors import HeimdallError, StorageError

TELL_S = 10.0
Notifier = Callable[[str, str], None]
"""Called with a title and a text."""

TITLE_LENGTH = 200


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


def send_mail(address: str, name: str = "HEIMDALL_MAIL") -> Notifier:
    """Return a notifier that sends an e-mail by the server at ``address``, which errors call by its ``name``.

    Args:
        address: ``smtp://`` (encrypted where the server offers it) or ``smtps://``, with ``?from=...&to=...,...`` and,
            where the server asks for them, user and password, which go over an encrypted connection alone.
        name: of the variable that holds the address.
    """
    parts = urlsplit(address)
    asked = parse_qs(parts.query)
    sender, receivers = asked["from"][0], asked["to"][0]

    def notify(title: str, text: str) -> None:
        message = EmailMessage()
        message["From"], message["To"] = sender, receivers
        message["Subject"] = " ".join(title.split())[:TITLE_LENGTH]
        message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain="heimdall.invalid")
        message.set_content(text)
        try:
            with _connect(parts.scheme, str(parts.hostname), parts.port) as server:
                if parts.username:
                    if not _is_encrypted(server):
                        raise StorageError(f"{name}: could not be told (a password needs an encrypted connection)")
                    server.login(unquote(parts.username), unquote(parts.password or ""))
                refused = server.send_message(message)
        except (smtplib.SMTPException, OSError) as error:  # its words may repeat names and what was sent
            raise StorageError(f"{name}: could not be told ({type(error).__name__})") from None
        if refused:
            raise StorageError(f"{name}: could not be told (it refuses a receiver, others were told)")

    return notify


def _connect(scheme: str, host: str, port: int | None) -> smtplib.SMTP:
    context = ssl.create_default_context()
    if scheme == "smtps":
        return smtplib.SMTP_SSL(host, port or 465, timeout=TELL_S, context=context)
    server = smtplib.SMTP(host, port or 25, timeout=TELL_S)
    try:
        server.ehlo_or_helo_if_needed()
        if server.has_extn("starttls"):
            server.starttls(context=context)
            server.ehlo_or_helo_if_needed()
    except BaseException:
        server.close()
        raise
    return server


def _is_encrypted(server: smtplib.SMTP) -> bool:
    return isinstance(server.sock, ssl.SSLSocket)


def tell_each(channels: Mapping[str, Notifier], title: str, text: str) -> dict[str, str]:
    """Tell every channel; return name -> why, in a line, of those that could not be told."""
    failed = {}
    for name, notify in channels.items():
        try:
            notify(title, text)
        except HeimdallError as error:
            failed[name] = str(error)
    return failed


def join_channels(channels: Mapping[str, Notifier]) -> Notifier | None:
    """Return what tells all channels and raises ``StorageError`` where one could not be told; None: there are none."""
    if not channels:
        return None

    def notify(title: str, text: str) -> None:
        failed = tell_each(channels, title, text)
        if failed:
            raise StorageError("; ".join(failed.values()))

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
