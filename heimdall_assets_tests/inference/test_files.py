"""Recordings in files are read where nothing of the rest is installed; what cannot be read is one line."""

import json

import numpy as np
import pytest

from heimdall_assets.errors import InvalidRecording, NotFound
from heimdall_assets.formats.sigmf_archive import pack_sigmf
from heimdall_assets.inference import Stated, read_recording
from heimdall_assets_tests.inference.light import BLOCK, run_program

RATE = Stated(sample_rate_hz=24_000.0)


@pytest.fixture
def samples() -> np.ndarray:
    rng = np.random.default_rng(7)
    return (0.1 * rng.normal(size=(2400, 2)) @ [1.0, 1j]).astype(np.complex64)


def test_arrays_and_raw_samples_are_read_without_the_rest(tmp_path, samples):
    np.save(tmp_path / "A.npy", samples)
    whole = np.round(samples.view(np.float32) * 32768).astype("<i2")
    (tmp_path / "B.ci16").write_bytes(whole.tobytes())
    program = BLOCK + (
        "import numpy as np\n"
        "from heimdall_assets.inference import Stated, read_recording\n"
        "for name, form in (('A.npy', None), ('B.ci16', 'raw-ci16')):\n"
        "    found = read_recording(name, Stated(sample_rate_hz=24000.0, start_unix_ns=10**18), form)\n"
        "    print(len(found.samples), found.sample_rate_hz, found.start_unix_ns, abs(found.samples).mean())\n"
    )
    one, two = (line.split() for line in run_program(program, folder=tmp_path).splitlines())
    assert one[:3] == two[:3] == ["2400", "24000.0", str(10**18)]
    assert float(one[3]) == pytest.approx(float(np.abs(samples).mean()), rel=1e-6)
    assert float(two[3]) == pytest.approx(float(one[3]), rel=1e-3)


def test_a_format_that_needs_more_says_what(tmp_path, samples):
    told = {
        "global": {"core:datatype": "cf32_le", "core:sample_rate": 24000, "core:version": "1.2.0"},
        "captures": [{"core:sample_start": 0}],
        "annotations": [],
    }
    packed = pack_sigmf("A.sigmf-meta", json.dumps(told).encode(), {"A.sigmf-data": samples.tobytes()})
    (tmp_path / "A.sigmf").write_bytes(packed)
    np.testing.assert_array_equal(read_recording(tmp_path / "A.sigmf").samples, samples)
    program = BLOCK + (
        "from heimdall_assets.errors import MissingDependency\n"
        "from heimdall_assets.inference import read_recording\n"
        "try: read_recording('A.sigmf')\n"
        "except MissingDependency as error: print(error)\n"
    )
    said = run_program(program, folder=tmp_path)
    assert said == "A.sigmf: its format needs sigmf, which is not installed; expected the whole package\n"


@pytest.mark.parametrize(
    ("name", "data", "error", "said"),
    [
        ("gone.npy", None, NotFound, "found no file"),
        ("empty.npy", b"", InvalidRecording, "empty.npy: "),
        ("letter.txt", b"A letter", InvalidRecording, "neither its first bytes nor its name tell its format"),
        ("cut.npy", b"\x93NUMPY\x01\x00", InvalidRecording, "cut.npy: "),
    ],
)
def test_what_is_no_recording_is_one_line(tmp_path, name, data, error, said):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(error) as caught:
        read_recording(tmp_path / name, RATE)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_recording(tmp_path):
    with pytest.raises(InvalidRecording, match="expected a regular file"):
        read_recording(tmp_path, RATE)
