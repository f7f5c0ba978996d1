"""``heimdall sessions``: list, show, approve, reject."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from heimdall_assets.cli.intake.file_options import waiver_option
from heimdall_assets.cli.terminal.homes import look_home, open_home, show_home
from heimdall_assets.cli.terminal.output import (
    json_option,
    write_fields,
    write_json,
    write_line,
    write_notice,
    write_table,
    write_text,
)
from heimdall_assets.counts import say_count
from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.places import read_places
from heimdall_assets.running.trainable import check_campaigns

if TYPE_CHECKING:
    from heimdall_assets.stores.database.measurements import MeasurementStore

STATUSES = [str(status) for status in ApprovalStatus]


@click.group()
def sessions() -> None:
    """List sessions and decide which may be learned from."""


@sessions.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only sessions of this approval status.")
@click.option("--campaign", help="Only sessions of this campaign.")
@json_option
def list_sessions(status: str | None, campaign: str | None, as_json: bool) -> None:
    """List sessions."""
    stores = look_home()
    rows = _find_sessions(stores.measurements, status, campaign) if stores else []
    if as_json:
        write_json(rows)
        return
    columns = {
        "session": "session_name",
        "campaign": "campaign",
        "origin": "origin",
        "status": "approval_status",
        "receivers": "num_measurements",
    }
    if len({row["session_name"] for row in rows}) < len(rows):  # only an id tells namesakes apart
        columns = {"id": "id", **columns}
    write_table(
        say_count(len(rows), "session"), list(columns), [[row[name] for name in columns.values()] for row in rows]
    )


def _find_sessions(store: "MeasurementStore", status: str | None, campaign: str | None) -> list[dict[str, Any]]:
    rows = store.list_sessions(approval_status=None if status is None else ApprovalStatus(status), campaign=campaign)
    if nameless := store.count_nameless():
        write_notice(f"left out: {say_count(nameless, 'measurement')} of no session (session_id is empty)")
    if not rows and not store.count_sessions():
        write_notice(f"{show_home()}: no sessions yet; heimdall demo or heimdall import adds some")
    return rows


@sessions.command()
@click.argument("session")
@json_option
def show(session: str, as_json: bool) -> None:
    """Show a session (id or name) with its measurements and every decision about it."""
    found = open_home().measurements.find_session(session)
    if as_json:
        write_json(found)
        return
    write_fields(_describe_session(found))
    _write_receivers(found)
    for event in found["approval_events"]:
        write_line(f"{event['decision']} by {event['decided_by']}, {event['decided_at']}: {event['reason']}")


def _describe_session(found: dict[str, Any]) -> dict[str, Any]:
    """Return what stands in a session's own row, with its source in one line and each attribute on its own."""
    source = found["source"]
    fields = {name: value for name, value in found.items() if not isinstance(value, list | dict)}
    if source is not None:
        doubt = source.get("error_margin_meters")
        place = f"{_format_degrees(source['latitude'])}, {_format_degrees(source['longitude'])}"
        fields["source"] = f"{source['name']}, {place}" + (f" +- {doubt:g} m" if doubt else "")
    attributes = found.get("attributes")
    return fields | (attributes if isinstance(attributes, dict) else {})


def _write_receivers(found: dict[str, Any]) -> None:
    stations = {station["id"]: station for station in found["stations"]}
    rows = [_describe_receiver(row, stations.get(row["websdr_station_id"], {})) for row in found["measurements"]]
    rows.sort(key=lambda row: str(row["station"]))
    names = [name for name in (rows[0] if rows else {}) if any(row[name] not in (None, "") for row in rows)]
    write_table(say_count(len(rows), "receiver"), names, [[row[name] for name in names] for row in rows])


def _describe_receiver(row: dict[str, Any], station: dict[str, Any]) -> dict[str, Any]:
    """Return one receiver's part in as few columns as a narrow terminal holds; ``--json`` says everything."""
    moves = row.get("receiver_latitude") is not None
    latitude, longitude = (
        row[f"receiver_{name}"] if moves else station.get(name) for name in ("latitude", "longitude")
    )
    return {
        "station": station.get("name") or row["websdr_station_id"],
        "latitude": _format_degrees(latitude),
        "longitude": _format_degrees(longitude),
        "clock": station.get("clock_class"),
        "dB": row.get("signal_strength_db"),
        "SNR": row.get("snr_db"),
        "arrival ns": row.get("arrival_unix_ns"),
        "sigma ns": None if row.get("arrival_sigma_s") is None else round(1e9 * row["arrival_sigma_s"], 1),
        "bearing deg": _pair(row.get("bearing_deg"), row.get("bearing_sigma_deg")),
        "IQ s": row.get("duration_seconds") if row.get("iq_data_location") else None,
    }


def _pair(value: float | None, sigma: float | None) -> str | None:
    return None if value is None or sigma is None else f"{value:g} +- {sigma:g}"


def _format_degrees(value: Any) -> str:
    return f"{value:.5f}" if isinstance(value, int | float) else "?"


def _decide(
    decision: ApprovalStatus,
    names: tuple[str, ...],
    campaign: str | None,
    everything: bool,
    by: str,
    reason: str,
    as_json: bool,
    key: Path | None,
    waiver: str | None = None,
) -> None:
    signer = None if key is None else read_places().read_key(key, "--key")
    if bool(names) + (campaign is not None) + everything != 1:
        raise InvalidSetting(
            "expected sessions by id or name, or --campaign NAME, or --all-pending: exactly one of them"
        )
    stores = open_home()
    store = stores.measurements
    if names:
        ids = store.resolve_sessions(names)
    else:
        if campaign is not None:
            check_campaigns(stores, [campaign])
        pending = None if campaign is not None and decision is ApprovalStatus.REJECTED else ApprovalStatus.PENDING
        ids = [row["id"] for row in store.list_sessions(approval_status=pending, campaign=campaign)]
    count = store.decide(ids, decision, by, reason, waiver, signer)
    if as_json:
        write_json({"decision": decision, "num_sessions": count, "signed": signer is not None})
    else:
        write_text(f"{decision}: {say_count(count, 'session')}{', signed' if signer is not None else ''}")


def _decision_command(name: str, decision: ApprovalStatus, text: str) -> click.Command:
    @sessions.command(name, help=text)
    @click.argument("names", nargs=-1, metavar="[SESSION]...")
    @click.option("--campaign", help="Every session of this campaign (approve: those pending).")
    @click.option("--all-pending", "everything", is_flag=True, help="Every pending session.")
    @click.option("--by", required=True, help="Who decides.")
    @click.option("--reason", required=True, help="Why.")
    @click.option(
        "--key", type=click.Path(dir_okay=False, path_type=Path), help="Sign it with this key, of who decides."
    )
    @json_option
    def command(
        names: tuple[str, ...],
        campaign: str | None,
        everything: bool,
        by: str,
        reason: str,
        as_json: bool,
        key: Path | None,
        waiver: str | None = None,
    ) -> None:
        _decide(decision, names, campaign, everything, by, reason, as_json, key, waiver)

    return waiver_option(command) if decision is ApprovalStatus.APPROVED else command


approve = _decision_command("approve", ApprovalStatus.APPROVED, "Approve sessions: their transmitter is known.")
reject = _decision_command("reject", ApprovalStatus.REJECTED, "Reject sessions, or withdraw an earlier approval.")
