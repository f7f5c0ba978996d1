"""What goes wrong with the files of a session, in every format: one line that names the file, and nothing is added."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from heimdall_assets.errors import InvalidInput
from heimdall_assets.formats import FORMATS, Stated
from heimdall_assets_tests.cli.test_bad_input import assert_untouched, run
from heimdall_assets_tests.formats.recordings import (
    make_iq_wav,
    make_kiwisdr,
    make_noise,
    make_npy,
    make_sigmf,
    make_sigmf_metadata,
    to_pairs,
)

START = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
RATE_HZ = 24_000.0
LARGE = 1e3
"""How much a rate is wrong that was taken for one in kHz."""


@dataclass(frozen=True)
class Written:
    """How a format's files are made: (samples, start, sample rate) -> bytes, their ending, and what is said of them."""

    make: Callable[[np.ndarray, datetime, float], bytes]
    ending: str
    options: tuple[str, ...]
    is_told_rate: bool = True
    is_float: bool = False

    def state(self, start: datetime, rate_hz: float) -> list[str]:
        """Return the options that say what the files do not."""
        said = {"RATE": f"{rate_hz:g}", "START": f"{start:%Y-%m-%dT%H:%M:%S}Z"}
        return [said.get(word, word) for word in self.options]


def write_sigmf(samples: np.ndarray, start: datetime, rate_hz: float) -> bytes:
    metadata = make_sigmf_metadata(sample_rate=rate_hz)
    metadata["captures"][0]["core:datetime"] = f"{start:%Y-%m-%dT%H:%M:%S.%f}Z"
    return make_sigmf(samples, metadata)


def write_kiwisdr(samples: np.ndarray, start: datetime, rate_hz: float) -> bytes:
    return make_kiwisdr(samples, rate_hz=12_000.0, header_rate_hz=round(rate_hz / 2.0), start=start, fix_every_s=2.0)


STATED = ("--rate-hz", "RATE", "--start", "START", "--frequency-hz", "145.5e6", "--clock", "none")
FILES = {
    "npy": Written(lambda samples, *_: make_npy(samples), ".npy", STATED, is_float=True),
    "sigmf": Written(write_sigmf, ".sigmf", ("--clock", "none"), is_told_rate=False, is_float=True),
    "wav": Written(
        lambda samples, start, rate_hz: make_iq_wav(to_pairs(samples), 16, rate_hz=round(rate_hz), start=start),
        ".wav",
        ("--clock", "none"),
        is_told_rate=False,
    ),
    "raw-ci16": Written(lambda samples, *_: to_pairs(samples).tobytes(), ".cs16", STATED),
    "raw-cf32": Written(lambda samples, *_: samples.tobytes(), ".cf32", STATED, is_float=True),
    "kiwisdr": Written(write_kiwisdr, "_iq.wav", ("--frequency-hz", "145.5e6"), is_told_rate=False),
}
NUM_SAMPLES = 12_000 * 8


class Session:
    """Two receivers' files of one format, and the command that imports them."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name, self.written = folder, name, FILES[name]

    def write(self, station: str, samples: np.ndarray, start: datetime = START, rate_hz: float = RATE_HZ) -> Path:
        data = self.written.make(samples, start, rate_hz)
        stem = f"{start:%Y%m%dT%H%M%SZ}_145500000_{station}" if self.name == "kiwisdr" else station
        file = self.folder / f"{stem}{self.written.ending}"
        file.write_bytes(data)
        return file

    def refuse(self, *files: object, rate_hz: float = RATE_HZ, start: datetime = START) -> str:
        """Return the one line in which importing ends; nothing is added."""
        error = run(self.folder / "home", *self.say(files, rate_hz, start))
        assert_untouched(self.folder / "home")
        return error

    def say(self, files: tuple[object, ...], rate_hz: float = RATE_HZ, start: datetime = START) -> list[object]:
        places = ["--receiver", "A,45.1,8.0", "--receiver", "B,45.0,8.2"]
        options = [*places, *self.written.state(start, rate_hz)]
        return ["import", self.name, "--session", "s", "--source", "X,45.0,8.1", *options, *files]


@pytest.fixture(params=FILES)
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Session:
    return Session(tmp_path, request.param)


def test_the_files_are_imported_before_anything_is_wrong_with_them(session: Session):
    files = session.write("A", make_noise(NUM_SAMPLES)), session.write("B", make_noise(NUM_SAMPLES, seed=1))
    run(session.folder / "home", *session.say(files), code=0)


def test_two_files_of_one_station_are_refused(session: Session):
    first, second = session.write("A", make_noise(NUM_SAMPLES)), session.write("B", make_noise(NUM_SAMPLES, seed=1))
    error = session.refuse(first, "--recording", f"A={second}")
    assert f"{second.name}: station A already has {first.name}" in error


def test_the_same_bytes_of_two_stations_are_refused(session: Session):
    files = [session.write(station, make_noise(NUM_SAMPLES)) for station in "AB"]
    assert f"{files[1].name}: the same bytes as {files[0].name}" in session.refuse(*files)


def test_files_of_different_days_are_refused(session: Session):
    later = START + timedelta(days=1)
    files = session.write("A", make_noise(NUM_SAMPLES)), session.write("B", make_noise(NUM_SAMPLES, seed=1), later)
    if "--start" in session.written.options:  # one start is said of all files: beside each, its own
        options = [word for word in session.written.options if word not in ("--start", "START")]
        session.written = Written(session.written.make, session.written.ending, tuple(options))
        for file, start in zip(files, (START, later), strict=True):
            file.with_name(f"{file.name}.json").write_text(f'{{"start": "{start:%Y-%m-%dT%H:%M:%S}Z"}}')
    assert "of the same transmission" in session.refuse(*files)


@pytest.mark.parametrize("factor", [LARGE, 1.0 / LARGE])
def test_a_rate_that_is_wrong_by_a_thousand_is_refused(session: Session, factor: float):
    wrong_hz = RATE_HZ * factor
    files = (
        session.write("A", make_noise(NUM_SAMPLES), rate_hz=wrong_hz),
        session.write("B", make_noise(NUM_SAMPLES, seed=1), rate_hz=wrong_hz),
    )
    error = session.refuse(*files, rate_hz=wrong_hz)
    assert "Hz" in error or "s long" in error
    assert files[0].name in error


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [name for name, written in FILES.items() if written.is_float])
def test_a_sample_that_is_no_number_is_refused(tmp_path: Path, name: str, value: float):
    session = Session(tmp_path, name)
    samples = make_noise(NUM_SAMPLES)
    samples[NUM_SAMPLES // 2] = value
    file = session.write("A", samples)
    error = session.refuse(file)
    assert file.name in error
    assert "finite" in error


def test_a_file_cut_at_any_byte_is_refused_or_what_is_left_is_a_beginning(session: Session):
    """A recorder that is killed leaves a beginning; nothing else may come out of less than a whole file."""
    known = next(known for known in FORMATS.values() if known.command == session.name)
    samples = make_noise(NUM_SAMPLES if session.name == "kiwisdr" else 600)
    file = session.write("A", samples)
    data = file.read_bytes()
    stated = Stated(
        sample_rate_hz=RATE_HZ if "sample_rate_hz" in known.must_state else None, frequency_hz=None, start_unix_ns=None
    )
    whole = known.decode(data, file.name, stated, 10**6).samples
    step = max(1, len(data) // (300 if session.name in ("sigmf", "kiwisdr") else 3000))  # these take their time
    num_refused = 0
    for length in range(0, len(data), step):
        try:
            found = known.decode(data[:length], file.name, stated, 10**6).samples
        except InvalidInput:
            num_refused += 1
        else:
            np.testing.assert_array_equal(found, whole[: len(found)])
    assert num_refused > 0
