"""``heimdall inspect``: what a file is and how to import it, never a traceback."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from heimdall_assets.formats import FORMATS, Stated
from heimdall_assets.formats.guessing import guess_coding
from heimdall_assets.pipeline.intake.inspection import inspect_file
from heimdall_assets_tests.cli.test_first_minutes import heimdall
from heimdall_assets_tests.formats.recordings import (
    make_iq_wav,
    make_kiwisdr,
    make_noise,
    make_npy,
    make_sigmf,
    make_sigmf_metadata,
    to_pairs,
)

NOISE = make_noise(24_000)
POINT = {"type": "Point", "coordinates": [8.5, 46.5]}
CODED = {
    "raw-cf32": NOISE.tobytes(),
    "raw-ci16": to_pairs(NOISE).tobytes(),
    "raw-ci8": np.rint(NOISE.view(np.float32) * 128).astype("i1").tobytes(),
    "raw-cu8": np.rint(NOISE.view(np.float32) * 127.5 + 127.5).astype("u1").tobytes(),
}


def write(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize(
    ("name", "data", "what", "missing"),
    [
        ("A.npy", make_npy(NOISE), "NumPy array", {"--receiver", "--clock", "--rate-hz", "--start", "--frequency-hz"}),
        ("A.sigmf", make_sigmf(NOISE), "SigMF recording", {"--receiver", "--clock"}),
        ("A.sigmf", make_sigmf(NOISE, make_sigmf_metadata(geolocation=POINT)), "SigMF recording", {"--clock"}),
        ("20260304T120000Z_77500_A_iq.wav", make_kiwisdr(make_noise(512 * 500)), "KiwiSDR recording", {"--receiver"}),
        (
            "HDSDR_20260304_120000Z_7050kHz_RF.wav",
            make_iq_wav(to_pairs(NOISE), 16),
            "IQ recording of SDR#",
            {"--receiver", "--clock"},
        ),
    ],
)
def test_what_is_missing_stands_in_the_command(tmp_path, name, data, what, missing):
    found = inspect_file(write(tmp_path, name, data), Stated())
    assert (what in found.title, found.problem) == (True, None)
    options = {word for word in shlex.split(found.command) if word.startswith("--")}
    assert options - {"--session", "--source", "--recording"} == missing
    assert len(found.missing) == len(missing)


def test_the_command_imports_the_file_when_its_capitals_are_filled_in(tmp_path):
    file = write(tmp_path, "A.npy", make_npy(NOISE))
    command = inspect_file(file, Stated()).command
    said = {
        "NAME": "s", "TRANSMITTER,LAT,LON": "X,46,8", "CODE,LAT,LON": "A,46,8.1", "CLOCK": "gnss", "RATE": "24000",
        "TIME": "2026-11-20T10:00:00Z", "HZ": "145.5e6", "CODE=": "A=",
    }  # fmt: skip
    for word, value in said.items():
        command = command.replace(word, value)
    heimdall(tmp_path / "home", *shlex.split(command)[1:])
    shown = json.loads(heimdall(tmp_path / "home", "sessions", "show", "s", "--json").stdout)
    assert shown["measurements"][0]["iq_samples_count"] == 24_000


@pytest.mark.parametrize("name", CODED)
def test_headerless_samples_are_guessed_at_and_said_to_be(tmp_path, name):
    assert guess_coding(CODED[name]) == name
    found = inspect_file(write(tmp_path, "unknown.bin", CODED[name]), Stated(sample_rate_hz=48_000.0))
    assert found.title == f"looks like {FORMATS[name].title}; its name does not say so"
    assert found.facts["duration_s"] == pytest.approx(0.5)
    assert f"heimdall import {FORMATS[name].command} " in found.command


def test_files_their_plot_and_json(tmp_path):
    file, plot = write(tmp_path, "A.sigmf", make_sigmf(NOISE)), tmp_path / "a.png"
    told = heimdall(tmp_path / "home", "inspect", file, "--plot", plot)
    assert "start             2026-03-04T12:00:00.123456789Z" in told.stdout
    assert "to import it: heimdall import sigmf" in told.stdout
    assert plot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert not (tmp_path / "home").exists()
    (described,) = json.loads(heimdall(tmp_path / "home", "inspect", file, "--json").stdout)
    assert described["facts"]["num_samples"] == 24_000
    text = write(tmp_path, "a.txt", b"A letter. " * 100)
    assert "cannot be used: a.txt: neither first bytes" in heimdall(tmp_path / "home", "inspect", text).stdout
    refused = heimdall(tmp_path / "home", "inspect", text, "--plot", plot, code=2)
    assert "gave no samples to draw" in refused.stderr
    refused = heimdall(tmp_path / "home", "inspect", file, "--format", "mp3", code=2)
    assert "format 'mp3': expected one of" in refused.stderr


def make_random(number: int) -> tuple[str, bytes]:
    rng = np.random.default_rng(number)
    endings = ["", ".txt", *sorted(ending for known in FORMATS.values() for ending in known.endings)]
    whole = [make_npy(NOISE[:200]), make_sigmf(NOISE[:200]), make_iq_wav(to_pairs(NOISE[:200]), 16)]
    body = bytearray(whole[number % 3] if number % 2 else rng.bytes(int(rng.integers(0, 3000))))
    for place in rng.integers(0, max(len(body), 1), size=int(rng.integers(0, 6))):
        body[place : place + 1] = rng.bytes(1)
    return f"f{number}{endings[number % len(endings)]}", bytes(body[: int(rng.integers(0, len(body) + 1))])


def test_random_files_are_told_of_in_one_line_each(tmp_path):
    for number in range(1000):
        path = write(tmp_path, *make_random(number))
        for stated in (Stated(), Stated(sample_rate_hz=48_000.0)):
            found = inspect_file(path, stated)
            assert "\n" not in (found.problem or "")
            assert (found.problem is None) == (found.command is not None)
