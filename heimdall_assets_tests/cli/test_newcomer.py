"""The README's lines on a newcomer's own files, typed one after the other: looked at, imported, located."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from heimdall_assets.signals.geodesy import compute_distance_m
from heimdall_assets_tests.cli.test_first_minutes import heimdall
from heimdall_assets_tests.documents import BLOCK, parse_commands, read_text
from heimdall_assets_tests.formats.recordings import make_sigmf, make_sigmf_metadata
from heimdall_assets_tests.package_names import ROOT
from heimdall_assets_tests.pipeline.test_formats_to_positions import (
    FREQUENCY_HZ,
    NUM_SAMPLES,
    RATE_HZ,
    RECEIVERS,
    STARTS_NS,
    receive,
    write_time,
)

README = ROOT / "README.md"
TRUE = {"beacon": (46.0, 8.0, 100.0), "walk-1": (46.0, 8.0, 30_000.0), "dcf77": (50.0155, 9.0108, 15_000.0)}
"""Session -> where its transmitter stood, and how near the estimate comes, m."""


def read_lines() -> list[list[str]]:
    """Return the arguments of each command of the README's part on a newcomer's files."""
    first = BLOCK.search(read_text(README).partition("## Your own files\n")[2])
    assert first is not None
    return parse_commands(first[0], "heimdall")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README's lines name: one transmission at four receivers, and levels of another."""
    folder = tmp_path_factory.mktemp("newcomer")
    for name, samples in receive(NUM_SAMPLES, RATE_HZ, STARTS_NS).items():
        place = RECEIVERS[name]
        point = {"type": "Point", "coordinates": [place.longitude, place.latitude]}
        described = make_sigmf_metadata(sample_rate=RATE_HZ, geolocation=point)
        described["captures"][0] |= {"core:datetime": write_time(name, 9), "core:frequency": FREQUENCY_HZ}
        (folder / f"{name}.sigmf").write_bytes(make_sigmf(samples, described))
    listed = {name: {"latitude": at.latitude, "longitude": at.longitude} for name, at in RECEIVERS.items()}
    (folder / "receivers.json").write_text(json.dumps(listed))
    rows = ["session,time,latitude,longitude,receiver,level_dbm"]
    for name, at in RECEIVERS.items():
        distance_m = float(compute_distance_m(46.0, 8.0, at.latitude, at.longitude))
        level_dbm = -30.0 - 35.0 * np.log10(distance_m / 1000.0)
        rows.append(f"walk-1,2026-11-20 10:00:00,46.0,8.0,{name},{level_dbm:.1f}")
    (folder / "levels.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def with_recordings(folder: Path, shared_data: Path) -> Path:
    """The same with the real recordings of DCF77."""
    for file in (shared_data / "kiwisdr_dcf77_2017").glob("*_iq.wav"):
        shutil.copy(file, folder / file.name)
    return folder


def test_the_readme_s_lines_lead_from_files_to_positions(with_recordings: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(with_recordings)
    located = []
    for words in read_lines():
        typed = [
            part
            for word in words
            for part in (sorted(path.name for path in Path().glob(word)) if "*" in word else [word])
        ]
        told = heimdall(Path("home"), *typed).stdout
        if words[0] == "inspect":
            kinds = re.findall(r"^to import it: heimdall import ([\w-]+)", told, re.MULTILINE)
            assert kinds == ["sigmf", "kiwisdr", "kiwisdr", "kiwisdr", "rss-table"]
        if words[0] == "sessions":
            assert all(name in told for name in TRUE)
        if words[0] == "locate":
            found = json.loads(heimdall(Path("home"), *typed, "--json").stdout)
            located.append(words[1])
            assert found["error_m"] < TRUE[words[1]][2]
            assert found["inside_90"] is True
    assert sorted(located) == sorted(TRUE)
