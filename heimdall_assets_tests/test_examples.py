"""The example walks the whole way, and what it prints is near the truth; a second walk finds everything."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from heimdall_assets.signals.geodesy import compute_distance_m
from heimdall_assets_tests.package_names import ROOT


@pytest.fixture(scope="module")
def example() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "examples" / "walkthrough.py")))


def test_the_walk_ends_near_the_transmitter_and_its_lineage_holds(
    example: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)  # whatever it keeps lies in the folder that it is told
    folder = tmp_path / "a home"
    example.main([str(folder)])
    said = capsys.readouterr().out
    truth = example.simulate_session(example.LOUD, 0).source.position
    places = re.findall(r"^(locate|predict): +(-?[\d.]+), (-?[\d.]+), 90 % ellipse (\d+) m", said, re.MULTILINE)
    assert [what for what, *_ in places] == ["locate", "predict", "predict"]
    for _, latitude, longitude, semi_major_m in places:
        error_m = compute_distance_m(float(latitude), float(longitude), truth.latitude, truth.longitude)
        assert error_m < 2.0 * float(semi_major_m) < 1000.0
    assert re.search(r"^look: +beacon-1: pending, 7 receivers$", said, re.MULTILINE)
    assert re.search(r"^v1\.0\.0  25 sessions .*; 1 measured, 24 simulated", said, re.MULTILINE)
    assert "verify:    all is as it was released" in said
    assert [path.name for path in tmp_path.iterdir()] == ["a home"]

    objects = {path for path in (folder / "objects").rglob("*") if path.is_file()}
    example.main([str(folder)])
    again = capsys.readouterr().out
    assert "num_sessions=0" in again
    assert re.search(r"^released: +v1\.0\.0, champion: False \(it is the champion already\)$", again, re.MULTILINE)
    assert {path for path in (folder / "objects").rglob("*") if path.is_file()} == objects  # nothing new was computed
