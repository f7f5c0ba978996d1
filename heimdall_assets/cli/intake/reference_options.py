"""Reference options: the transmitter of known place that sets the receivers' clocks, and where files hold it.

Belongs here: these options, read one way by every command that takes files. Does not belong here: what else files
cannot say (``file_options``), what the reference does (``pipeline.intake.reference_timing``).
"""

from typing import TYPE_CHECKING, Any

import click

from heimdall_assets.cli.intake.file_options import Command, RecordingType, parse_number, parse_position, split_parts
from heimdall_assets.domain import Frequency, Position, check_name
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.fields import read_bounds

if TYPE_CHECKING:
    from heimdall_assets.pipeline.intake.handed_in import Handed
    from heimdall_assets.pipeline.intake.reference_timing import ReferenceClaim

SEARCH_S = 0.1
"""How far two receivers' clocks may be apart unless said otherwise: computers that network time keeps in step."""

CLOCK_ERROR_PPM = 100.0
"""Largest error of a receiver's oscillator unless said otherwise: a plain crystal, warm and aged."""

RECEIVER_SIGMA_M = 5.0
"""One-sigma error of a receiver's stated position unless said otherwise: a telephone's GNSS."""


class TransmitterType(click.ParamType[tuple[str, Position, float]]):
    """``NAME=LAT,LON[,ALT_M[,MARGIN_M]]``: the reference, and the one-sigma doubt about its position."""

    name = "NAME=LAT,LON[,ALT_M[,MARGIN_M]]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Position, float]:
        name, found, place = value.partition("=")
        what = "--reference-transmitter"
        if not found:
            raise InvalidSetting(f"{what} {value!r:.80}: expected NAME=LAT,LON")
        latitude, longitude, altitude, margin = (*split_parts(place, 2, 4, what), "0", "0")[:4]
        what = f"{what} {check_name(name, 'reference')}"
        margin_m = parse_number(margin, f"{what} margin")
        if not 0.0 <= margin_m <= 1e6:
            raise InvalidSetting(f"{what} margin: found {margin_m:g} m, expected 0 to 1000000")
        return name, parse_position(latitude, longitude, what, altitude), margin_m


_OPTIONS = (
    click.option(
        "--reference-transmitter",
        type=TransmitterType(),
        help="A transmitter of known place that all receivers recorded too: it sets their clocks.",
    ),
    click.option("--reference-frequency-hz", type=float, help="Its radio frequency."),
    click.option(
        "--reference-part",
        "reference_parts",
        metavar="BEGIN:END",
        multiple=True,
        help="Where files hold it; repeatable.",
    ),
    click.option("--wanted-part", metavar="BEGIN:END", help="Where files hold the wanted transmission."),
    click.option(
        "--parts-in",
        type=click.Choice(["s", "samples"]),
        default="s",
        show_default=True,
        help="Unit of parts: seconds at the recorder's own rate, or samples.",
    ),
    click.option("--reference-channel", type=int, help="Which channel of each file holds it."),
    click.option(
        "--reference-recording",
        "reference_recordings",
        type=RecordingType(),
        multiple=True,
        help="A file of the same receiver, on the same clock, that holds it.",
    ),
    click.option("--reference-bandwidth-hz", type=float, help="Its bandwidth, if it is not all that stands out."),
    click.option(
        "--reference-search-s",
        type=float,
        default=SEARCH_S,
        show_default=True,
        help="How far two receivers' clocks may be apart.",
    ),
    click.option(
        "--max-clock-error-ppm",
        type=float,
        default=CLOCK_ERROR_PPM,
        show_default=True,
        help="Largest error of a receiver's oscillator.",
    ),
    click.option(
        "--receiver-sigma-m",
        type=float,
        default=RECEIVER_SIGMA_M,
        show_default=True,
        help="One-sigma error of receivers' positions, as the reference's delay feels it.",
    ),
    click.option(
        "--one-oscillator",
        is_flag=True,
        help="Carrier and sample rate of each receiver come from one crystal: the one's offset tells the other's.",
    ),
)


def reference_options(command: Command) -> Command:
    """Return ``command`` with every option about the reference."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take_reference(given: dict[str, Any]) -> "ReferenceClaim | None":
    """Return what the options say of the reference, taken out of ``given``; None: there is none.

    Raises:
        InvalidSetting: parts or files of a reference without the transmitter, no frequency, a part that is none, or a
            number that is out of range.
    """
    said = {name: given.pop(name) for name in _NAMES}
    transmitter, unit = said["reference_transmitter"], said["parts_in"]
    if transmitter is None:
        without = [f"--{name.replace('_', '-').removesuffix('s')}" for name in _NEEDS_IT if said[name]]
        if without:
            raise InvalidSetting(
                f"{without[0]}: found without a reference, expected --reference-transmitter NAME=LAT,LON"
            )
        return None
    name, position, margin_m = transmitter
    if said["reference_frequency_hz"] is None:
        raise InvalidSetting(f"--reference-transmitter {name}: found no frequency, expected --reference-frequency-hz")
    if not read_bounds(Frequency).hold(said["reference_frequency_hz"]):
        raise InvalidSetting(
            f"--reference-frequency-hz: found {said['reference_frequency_hz']:g}, expected {read_bounds(Frequency)}"
        )
    for option, low, high in (
        ("reference_bandwidth_hz", 1.0, 1e9),
        ("reference_search_s", 1e-6, 60.0),
        ("max_clock_error_ppm", 1e-3, 1000.0),
        ("receiver_sigma_m", 0.0, 1e6),
        ("reference_channel", 1, 1024),
    ):
        if said[option] is not None and not low <= said[option] <= high:
            raise InvalidSetting(f"--{option.replace('_', '-')}: found {said[option]:g}, expected {low:g} to {high:g}")
    if said["reference_channel"] is not None and said["reference_recordings"]:
        raise InvalidSetting("--reference-channel: found beside --reference-recording, expected one of them")
    # Slow to load, and wanted only where there is a reference.
    from heimdall_assets.pipeline.intake.layout import Layout
    from heimdall_assets.pipeline.intake.reference_timing import ReferenceClaim
    from heimdall_assets.signals.acquisition import Search
    from heimdall_assets.signals.reference_clock import Reference

    wanted = said["wanted_part"]
    search = Search(
        reach_s=said["reference_search_s"],
        max_rate_error=said["max_clock_error_ppm"] * 1e-6,
        carrier_hz=said["reference_frequency_hz"],
        bandwidth_hz=said["reference_bandwidth_hz"],
    )
    return ReferenceClaim(
        Reference(
            name,
            position,
            search,
            margin_m,
            said["receiver_sigma_m"],
            is_one_oscillator=said["one_oscillator"],
        ),
        Layout(
            tuple(_parse_part(text, unit, "--reference-part") for text in said["reference_parts"]),
            None if wanted is None else _parse_part(wanted, unit, "--wanted-part"),
            said["reference_channel"],
        ),
        _collect_files(said["reference_recordings"]),
    )


_NAMES = (
    "reference_transmitter",
    "reference_frequency_hz",
    "reference_parts",
    "wanted_part",
    "parts_in",
    "reference_channel",
    "reference_recordings",
    "reference_bandwidth_hz",
    "reference_search_s",
    "max_clock_error_ppm",
    "receiver_sigma_m",
    "one_oscillator",
)
_NEEDS_IT = ("reference_frequency_hz", "reference_parts", "wanted_part", "reference_channel", "reference_recordings")


def _parse_part(text: str, unit: str, option: str) -> Any:
    from heimdall_assets.pipeline.intake.layout import parse_part

    begin, found, end = text.partition(":")
    if not found:
        raise InvalidSetting(f"{option} {text!r:.60}: expected BEGIN:END, such as 0:0.35")
    return parse_part(parse_number(begin, option), parse_number(end, option), unit, f"{option} {text:.60}")


def _collect_files(named: "tuple[Handed, ...]") -> "dict[str, Handed]":
    files: dict[str, Handed] = {}
    for one in named:
        assert one.station is not None  # such an option names it
        if one.station in files:
            raise InvalidSetting(f"--reference-recording {one.station}: found it twice, expected one file each")
        files[one.station] = one
    return files
