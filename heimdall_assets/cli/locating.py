"""``heimdall locate``, ``predict`` and ``evaluate``: positions with their ellipses, and how good they are."""

from pathlib import Path
from typing import Any

import click

from heimdall_assets.cli.intake.given_files import GivenFiles, GivenTable, file_options, take_given
from heimdall_assets.cli.receipts import begin_receipt, receipt_option
from heimdall_assets.cli.settings.choosing import campaigns_option
from heimdall_assets.cli.terminal.homes import begin_home, find_model, open_home
from heimdall_assets.cli.terminal.output import (
    json_option,
    write_comparison,
    write_json,
    write_line,
    write_table,
    write_text,
)
from heimdall_assets.cli.terminal.progress import show_progress, without_asset
from heimdall_assets.counts import say_count
from heimdall_assets.errors import CannotLocate
from heimdall_assets.running.trainable import check_campaigns
from heimdall_assets.specs import EvaluationSpec

MOVED_SIGMAS = 0.1
"""What the area moved a position by is told from this share of its sigma on."""


def write_position(found: dict[str, Any], as_json: bool) -> None:
    """Print one position."""
    if as_json:
        write_json(found)
        return
    write_text(f"{found['latitude']:.6f}, {found['longitude']:.6f}   ({found['method']})")
    write_text(_say_ellipse(found["ellipse_90"]))
    for line in (*say_alternatives(found["alternatives"]), *say_area(found["area"], found["method"])):
        write_text(line)
    if found["error_m"] is not None:
        inside = "inside" if found["inside_90"] else "outside"
        write_text(f"error: {found['error_m']:,.0f} m, the truth lies {inside} the ellipse")
    for line in say_signal(found.get("signal")):
        write_line(line)
    for remark in found.get("remarks", []):
        write_line(remark)
    for reason in found["refused"]:
        write_line(reason)


def say_alternatives(alternatives: list[dict[str, Any]]) -> list[str]:
    """Return a line for each of the places that explain a session alike, after one that tells how many there are.

    Examples:
        >>> ellipse = {"semi_major_m": 900.0, "semi_minor_m": 300.0, "azimuth_deg": 45.0}
        >>> north = {"latitude": 46.1, "longitude": 8.0, "weight": 0.7, "ellipse_90": ellipse}
        >>> south = {"latitude": 45.9, "longitude": 8.0, "weight": 0.3, "ellipse_90": ellipse}
        >>> for line in say_alternatives([north, south]):
        ...     print(line)
        2 places explain it; the ellipse above reaches over what is likely of them
        70 %: 46.100000, 8.000000; 90 % ellipse: 900 m x 300 m, major axis 45 deg from north
        30 %: 45.900000, 8.000000; 90 % ellipse: 900 m x 300 m, major axis 45 deg from north
    """
    if not alternatives:
        return []
    lines = [f"{len(alternatives)} places explain it; the ellipse above reaches over what is likely of them"]
    lines += [
        f"{100.0 * one['weight']:.0f} %: {one['latitude']:.6f}, {one['longitude']:.6f}; "
        + _say_ellipse(one["ellipse_90"])
        for one in alternatives
    ]
    return lines


def say_area(area: dict[str, Any] | None, method: str) -> list[str]:
    """Return what the area where sources are expected, or a model, did to a position, where that is worth a line.

    Examples:
        >>> say_area({"latitude": None, "longitude": None, "moved_m": None, "moved_sigmas": None}, "tdoa_robust")
        ['arrivals alone leave the distance open: it comes from the area where sources are expected']
        >>> say_area({"latitude": 46.0, "longitude": 14.0, "moved_m": 52_000.0, "moved_sigmas": 0.6}, "tdoa_robust")
        ['arrivals alone say 46.000000, 14.000000; the area where sources are expected moved that 52,000 m, 0.6 sigma']
        >>> say_area({"latitude": 46.0, "longitude": 8.0, "moved_m": 0.5, "moved_sigmas": 0.01}, "network")
        []
        >>> say_area({"latitude": None, "longitude": None, "moved_m": None, "moved_sigmas": None}, "bearings")
        ['bearings alone leave the distance open: it comes from the area where sources are expected']
        >>> say_area(None, "log_distance")
        []
    """
    if area is None:
        return []
    what = {"bearings": "bearings", "arrivals_and_bearings": "arrivals and bearings"}.get(method, "arrivals")
    if area["moved_m"] is None:
        return [f"{what} alone leave the distance open: it comes from the area where sources are expected"]
    if area["moved_sigmas"] < MOVED_SIGMAS:
        return []
    mover = "the model" if method == "network" else "the area where sources are expected"
    return [
        f"{what} alone say {area['latitude']:.6f}, {area['longitude']:.6f}; {mover} moved that "
        f"{area['moved_m']:,.0f} m, {area['moved_sigmas']:.1f} sigma"
    ]


def say_signal(signal: dict[str, Any] | None) -> list[str]:
    """Return what a model with signal heads says was sent and when, and what classical detection says of it.

    Examples:
        >>> said = {"type": "dtmf", "probability": 0.98, "onset": 0.0, "end": 0.9, "onset_s": 0.0, "end_s": 0.9}
        >>> found = {"model": said | {"snr_db": 14.2}, "classical": None}
        >>> say_signal(found)
        ['signal: dtmf (98 %), from its start to 0.900 s, SNR 14.2 dB', 'signal, classically: not demodulated']
        >>> say_signal(None)
        []
    """
    if signal is None:
        return []
    return [f"{title}: {_describe_signal(signal[name])}" for name, title in
            (("model", "signal"), ("classical", "signal, classically"))]  # fmt: skip


def _describe_signal(said: dict[str, Any] | None) -> str:
    if said is None:
        return "not demodulated"
    parts = []
    if said["type"] is not None:
        sure = said["probability"]
        parts.append(said["type"] + ("" if sure is None else f" ({100.0 * sure:.0f} %)"))
    if said["onset"] is not None:
        onset, end = (_say_edge(said, name) for name in ("onset", "end"))
        parts.append(
            f"from {'its start' if said['onset'] <= 0.0 else onset} to {'its end' if said['end'] >= 1.0 else end}"
        )
    if said["snr_db"] is not None:
        parts.append(f"SNR {said['snr_db']:.1f} dB")
    return ", ".join(parts)


def _say_edge(said: dict[str, Any], name: str) -> str:
    seconds = said[f"{name}_s"]
    return f"{100.0 * said[name]:.0f} % of it" if seconds is None else f"{seconds:.3f} s"


def _say_ellipse(ellipse: dict[str, float]) -> str:
    return (
        f"90 % ellipse: {ellipse['semi_major_m']:,.0f} m x {ellipse['semi_minor_m']:,.0f} m, "
        f"major axis {ellipse['azimuth_deg']:.0f} deg from north"
    )


def write_positions(found: list[dict[str, Any]], as_json: bool) -> None:
    """Print the positions of a table's sessions, a line each; of its only session all that is known.

    Raises:
        CannotLocate: its only session has none.
    """
    if as_json:
        write_json(found)
        return
    refuse_unlocated(found)
    if len(found) == 1:
        write_position(found[0], as_json)
        return
    located = [one for one in found if "latitude" in one]
    names = ("session", "latitude", "longitude", "90 % ellipse m", "azimuth deg", "error m", "inside", "method")
    write_table(say_count(len(located), "session"), names, [_list_position(one) for one in located])
    for line in dict.fromkeys(remark for one in found for remark in one.get("remarks", [])):
        write_line(line)
    for one in found:
        for reason in one["refused"]:
            write_line(reason)


def refuse_unlocated(found: list[dict[str, Any]]) -> None:
    """Do nothing unless a table's only session has no position; raises ``CannotLocate`` then."""
    if len(found) == 1 and "latitude" not in found[0]:
        raise CannotLocate("; ".join(found[0]["refused"]))


def _list_position(one: dict[str, Any]) -> list[Any]:
    ellipse = one["ellipse_90"]
    axes = f"{ellipse['semi_major_m']:,.0f} x {ellipse['semi_minor_m']:,.0f}"
    places = [one["session"], f"{one['latitude']:.6f}", f"{one['longitude']:.6f}", axes, round(ellipse["azimuth_deg"])]
    error = [None, None] if one["error_m"] is None else [round(one["error_m"]), "yes" if one["inside_90"] else "no"]
    return [*places, *error, one["method"]]


@click.command(short_help="Locate a session, files or a table classically, nothing learned.")
@click.argument("recordings", nargs=-1, metavar="SESSION|FILES|TABLE")
@file_options
@json_option
def locate(recordings: tuple[str, ...], as_json: bool, **said: Any) -> None:
    """Locate a transmitter by classical estimation, nothing learned.

    SESSION is one of the database, by id or name; FILES are recordings of one transmission in any format that
    `heimdall import` reads, each station's position given with --receiver unless the file says it. What files cannot
    say is given as for `heimdall import recordings`: --rate-hz, --start, --frequency-hz, --clock. TABLE is a file of
    arrival times or bearings, with options as for `heimdall import observations`; each of its sessions is located.
    """
    given = take_given("locate", recordings, **said)
    if isinstance(given, GivenTable):
        with show_progress(f"Locating {given.table}"):
            from heimdall_assets.pipeline.prediction.tables import locate_table

            located = locate_table(given.table, given.receiver_list, given.claim, given.clock_class)
        write_positions(located, as_json)
        return
    if isinstance(given, GivenFiles):
        stores = begin_home()[1]
        with show_progress(f"Locating {say_count(len(given.files), 'recording')}") as listener:
            from heimdall_assets.pipeline.prediction.files import locate_files

            found = locate_files(stores, **given.hand_on(), progress=without_asset(listener))
        write_position(found, as_json)
        return
    stores = open_home()
    stores.measurements.resolve_sessions([given])
    with show_progress(f"Locating session {given}") as listener:
        from heimdall_assets.pipeline.prediction.stored import locate_stored

        found = locate_stored(stores, given, without_asset(listener))
    write_position(found, as_json)


@click.command(short_help="Locate a session, files or a table with a released model.")
@click.argument("model")
@click.argument("recordings", nargs=-1, metavar="SESSION|FILES|TABLE")
@file_options
@receipt_option
@json_option
def predict(model: str, recordings: tuple[str, ...], receipt: Path | None, as_json: bool, **said: Any) -> None:
    """Locate a transmitter with a released MODEL (version, latest or alias).

    SESSION is one of the database, by id or name; FILES are recordings of one transmission in any format that
    `heimdall import` reads, each station's position given with --receiver unless the file says it. What files cannot
    say is given as for `heimdall import recordings`: --rate-hz, --start, --frequency-hz, --clock. TABLE is a file of
    arrival times or bearings, with options as for `heimdall import observations`.

    --receipt FILE keeps what was answered, from what, by which model, signed where HEIMDALL_SIGNING_KEY names a key.
    """
    stores = open_home()
    version = find_model(stores, model)
    given = take_given("predict", recordings, **said)
    slip = None if receipt is None else begin_receipt(stores, receipt, given)
    used = None if slip is None else slip.used
    if isinstance(given, GivenTable):
        with show_progress(f"Asking model {version}"):
            from heimdall_assets.pipeline.prediction.tables import predict_table

            claim, clock_class = given.claim, given.clock_class
            located = predict_table(stores, version, given.table, given.receiver_list, claim, clock_class, used)
        if slip is not None:
            if not as_json:
                refuse_unlocated(located)  # no position is given out then
            slip.keep(version, located)
        write_positions(located, as_json)
        if slip is not None:
            slip.tell(as_json)
        return
    if isinstance(given, GivenFiles):
        with show_progress(f"Asking model {version}") as listener:
            from heimdall_assets.pipeline.prediction.files import predict_files

            found = predict_files(stores, version, **given.hand_on(), progress=without_asset(listener), used=used)
    else:
        stores.measurements.resolve_sessions([given])
        with show_progress(f"Asking model {version}") as listener:
            from heimdall_assets.pipeline.prediction.stored import predict_stored

            found = predict_stored(stores, version, given, without_asset(listener), used)
    if slip is not None:
        slip.keep(version, found)
    write_position(found, as_json)
    if slip is not None:
        slip.tell(as_json)


@click.command(short_help="Judge a released model on sessions it has not seen.")
@click.argument("model")
@campaigns_option
@json_option
def evaluate(model: str, campaigns: tuple[str, ...], as_json: bool) -> None:
    """Evaluate a released MODEL on approved sessions that it was not trained on."""
    stores = open_home()
    version = find_model(stores, model)
    check_campaigns(stores, campaigns)
    with show_progress(f"Evaluating model {version}") as listener:
        from heimdall_assets.evaluation.table import compare_methods
        from heimdall_assets.pipeline.prediction.stored import evaluate_stored

        heard = without_asset(listener)
        metrics = evaluate_stored(stores, version, list(campaigns), EvaluationSpec(), heard)
    if as_json:
        write_json(metrics)
        return
    title = f"model {metrics['version']} on {say_count(metrics['num_sessions'], 'session')}"
    write_comparison(title, compare_methods(metrics), metrics["worse_than"])
    if metrics["num_refused_trained_on"]:
        write_text(f"left out: {say_count(metrics['num_refused_trained_on'], 'session')} that it was trained on")
