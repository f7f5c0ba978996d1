"""The example of the guide runs where nothing but what it asks for can be loaded."""

import shutil

from heimdall_assets_tests.inference.light import BLOCK, run_program
from heimdall_assets_tests.package_names import ROOT


def test_the_example_answers_from_a_copied_folder(released_home, tmp_path):
    _, summary = released_home(tmp_path / "home")
    shutil.copytree(summary["folder"], tmp_path / "copied")
    shutil.rmtree(tmp_path / "home")
    program = BLOCK + "import runpy; runpy.run_path(sys.argv.pop(1))"
    lines = run_program(program, str(ROOT / "examples" / "answer.py"), str(tmp_path / "copied")).splitlines()
    assert lines[0].startswith(summary["version"] + ": ")
    latitude, longitude = (float(part) for part in lines[0].split(": ")[1].split(", "))
    assert abs(latitude - 44.95) < 0.02  # of where the arrivals were computed for, 2 km
    assert abs(longitude - 8.45) < 0.02
    assert lines[1].endswith(" m, 90 %")
