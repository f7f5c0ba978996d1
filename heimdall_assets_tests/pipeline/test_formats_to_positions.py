"""From a user's files to a position: one transmission, written in every format by NumPy, SciPy, struct and the sigmf
library, imported and located.

Truth is physics: each receiver's samples are the transmitted signal, late by its way over the speed of the wave, on a
clock that is right; noise is 30 dB below.
"""

import gzip
import json
import tarfile
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from heimdall_assets.domain import Position
from heimdall_assets.formats import Stated
from heimdall_assets.formats.interface import NOTHING_STATED
from heimdall_assets.physical import SIGNAL_SPEED_M_S, ClockClass
from heimdall_assets.pipeline.intake.files import import_recordings
from heimdall_assets.pipeline.intake.handed_in import Handed
from heimdall_assets.pipeline.intake.identities import make_source
from heimdall_assets.pipeline.intake.iq_session import SessionClaim
from heimdall_assets.pipeline.prediction.stored import locate_stored
from heimdall_assets.signals.geodesy import compute_distance_m
from heimdall_assets.stores.home import Stores
from heimdall_assets_tests.formats.recordings import make_iq_wav, make_kiwisdr, to_pairs
from heimdall_assets_tests.homes import make_places

RATE_HZ = 24_000.0
NUM_SAMPLES = 12_000
TRUTH = Position(latitude=46.0, longitude=8.0)
RECEIVERS = {
    "RA": Position(latitude=46.6, longitude=7.4),
    "RB": Position(latitude=46.5, longitude=8.9),
    "RC": Position(latitude=45.4, longitude=8.7),
    "RD": Position(latitude=45.5, longitude=7.3),
}
STARTS_NS = dict(zip(RECEIVERS, (250_312_700, 250_471_100, 250_153_300, 250_049_900), strict=True))
SECOND_NS = 1_795_168_800 * 10**9  # 2026-11-20T10:00:00Z
FREQUENCY_HZ = 145.5e6


def receive(num_samples: int, rate_hz: float, starts_ns: dict[str, int]) -> dict[str, np.ndarray]:
    """Return station -> what it hears from its own start on: 10 kHz of noise, late by its way."""
    rng = np.random.default_rng(5)
    length = 1 << (2 * num_samples).bit_length()
    frequency = np.fft.fftfreq(length, 1.0 / rate_hz)
    spectrum = np.fft.fft(rng.normal(size=(length, 2)) @ [1.0, 1.0j])
    spectrum[np.abs(frequency) > min(5000.0, 0.4 * rate_hz)] = 0.0
    first_ns, heard = min(starts_ns.values()), {}
    for name, place in RECEIVERS.items():
        way_m = float(compute_distance_m(TRUTH.latitude, TRUTH.longitude, place.latitude, place.longitude))
        # one hundredth of a second of the signal before the first receiver starts, so that none hears its end
        at_s = 0.01 + (starts_ns[name] - first_ns) * 1e-9 - way_m / SIGNAL_SPEED_M_S
        samples = np.fft.ifft(spectrum * np.exp(2j * np.pi * frequency * at_s))[:num_samples]
        samples *= 0.1 / np.sqrt(np.mean(np.abs(samples) ** 2))
        heard[name] = (samples + 0.0022 * (rng.normal(size=(num_samples, 2)) @ [1.0, 1.0j])).astype(np.complex64)
    return heard


def write_time(name: str, digits: int) -> str:
    return f"2026-11-20T10:00:00.{STARTS_NS[name] * 1000:012d}"[: 20 + digits] + "Z"


def write_sigmf(folder: Path, name: str, samples: np.ndarray, datatype: str, raw: bytes, **described: object) -> Path:
    capture = {"core:sample_start": 0, "core:frequency": FREQUENCY_HZ, "core:datetime": write_time(name, 9)}
    facts = {"core:datatype": datatype, "core:sample_rate": RATE_HZ, "core:version": "1.2.0"} | described
    (folder / f"{name}.sigmf-meta").write_text(json.dumps({"global": facts, "captures": [capture], "annotations": []}))
    (folder / f"{name}.sigmf-data").write_bytes(raw)
    return folder / f"{name}.sigmf-meta"


def pairs_of(samples: np.ndarray) -> np.ndarray:
    return samples.view(np.float32).reshape(-1, 2)


def write_unsigned(folder, name, samples):
    return write_sigmf(folder, name, samples, "cu8", np.rint(pairs_of(samples) * 127.5 + 127.5).astype("u1").tobytes())


def write_big_endian(folder, name, samples):
    return write_sigmf(folder, name, samples, "ci16_be", np.rint(pairs_of(samples) * 32768).astype(">i2").tobytes())


def write_unscaled(folder, name, samples):
    return write_sigmf(folder, name, samples, "cf32_le", (pairs_of(samples) * 2048).astype("<f4").tobytes())


def write_real(folder, name, samples):
    """The lower half of the signal's band as real samples: moved up by 3 kHz, so that all of it lies above 0 Hz."""
    frequency = np.fft.fftfreq(len(samples), 1.0 / RATE_HZ)
    spectrum = np.where(np.abs(frequency) < 2500.0, np.fft.fft(samples), 0.0)
    moved = np.fft.ifft(spectrum) * np.exp(2j * np.pi * 3000.0 * STARTS_NS[name] * 1e-9)  # its oscillator never stops
    real = 2.0 * (moved * np.exp(2j * np.pi * 3000.0 * np.arange(len(samples)) / RATE_HZ)).real
    return write_sigmf(folder, name, samples, "rf32_le", real.astype("<f4").tobytes())


def write_by_library(folder, name, samples):
    from sigmf import SigMFFile

    data = folder / f"{name}.sigmf-data"
    samples.tofile(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        facts = {"core:datatype": "cf32_le", "core:sample_rate": RATE_HZ}
        written = SigMFFile(data_file=data, global_info=facts)
        written.add_capture(0, metadata={"core:datetime": write_time(name, 9), "core:frequency": FREQUENCY_HZ})
        written.archive(str(folder / f"{name}.sigmf"))
    data.unlink()
    return folder / f"{name}.sigmf"


def write_compressed(folder, name, samples):
    plain = write_by_library(folder, name, samples)
    (folder / f"{name}.sigmf.gz").write_bytes(gzip.compress(plain.read_bytes()))
    return folder / f"{name}.sigmf.gz"


def write_dataset(folder, name, samples):
    """Metadata beside a recorder's own file, with a header and a tail around its samples."""
    meta = write_sigmf(
        folder, name, samples, "cf32_le", b"", **{"core:dataset": f"{name}.bin", "core:trailing_bytes": 3}
    )
    content = json.loads(meta.read_text())
    content["captures"][0]["core:header_bytes"] = 16
    meta.write_text(json.dumps(content))
    (folder / f"{name}.sigmf-data").unlink()
    (folder / f"{name}.bin").write_bytes(b"H" * 16 + samples.tobytes() + b"end")
    return meta


def write_sidecar(path: Path, name: str) -> Path:
    said = {"sample_rate_hz": RATE_HZ, "start": write_time(name, 9), "frequency_hz": FREQUENCY_HZ}
    path.with_name(f"{path.name}.json").write_text(json.dumps(said))
    return path


def write_file(folder: Path, file_name: str, data: bytes, name: str) -> Path:
    (folder / file_name).write_bytes(data)
    return write_sidecar(folder / file_name, name)


def write_npy(folder, name, array):
    np.save(folder / f"{name}.npy", array)
    return write_sidecar(folder / f"{name}.npy", name)


def write_scipy_wav(folder, name, samples):
    wavfile.write(folder / f"{name}.wav", int(RATE_HZ), to_pairs(samples))
    said = {"start": write_time(name, 9), "frequency_hz": FREQUENCY_HZ}
    (folder / f"{name}.wav.json").write_text(json.dumps(said))
    return folder / f"{name}.wav"


WRITERS: dict[str, Callable[[Path, str, np.ndarray], Path]] = {
    "sigmf cu8": write_unsigned,
    "sigmf ci16_be": write_big_endian,
    "sigmf rf32_le": write_real,
    "sigmf by its library": write_by_library,
    "sigmf.gz": write_compressed,
    "sigmf beside a foreign dataset": write_dataset,
    "rtl_sdr": lambda folder, name, samples: write_file(
        folder, f"{name}.cu8", np.rint(pairs_of(samples) * 127.5 + 127.5).astype("u1").tobytes(), name
    ),
    "hackrf_transfer": lambda folder, name, samples: write_file(
        folder, f"{name}.cs8", np.rint(pairs_of(samples) * 127).astype("i1").tobytes(), name
    ),
    "GNU Radio": lambda folder, name, samples: write_file(folder, f"{name}.cf32", samples.tobytes(), name),
    "npy float pairs, big endian, Fortran": lambda folder, name, samples: write_npy(
        folder, name, np.asfortranarray(pairs_of(samples).astype(">f4"))
    ),
    "npy uint8 pairs": lambda folder, name, samples: write_npy(
        folder, name, np.rint(pairs_of(samples) * 127.5 + 127.5).astype("u1")
    ),
    "npy (1, N)": lambda folder, name, samples: write_npy(folder, name, samples[None]),
    "wav by SciPy": write_scipy_wav,
}


@pytest.fixture(scope="module")
def heard() -> dict[str, np.ndarray]:
    return receive(NUM_SAMPLES, RATE_HZ, STARTS_NS)


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return make_places(tmp_path / "home").open_stores()


def run(
    stores: Stores, files: list, stated: Stated = NOTHING_STATED, clock: ClockClass = ClockClass.GNSS_CALIBRATED
) -> dict:
    claim = SessionClaim("call", make_source("X", TRUTH), "field", RECEIVERS, clock)
    import_recordings(stores.measurements, stores.objects, claim, files, stated)
    return locate_stored(stores, "call")


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_of_every_recorder_becomes_a_position(writer, stores, tmp_path, heard):
    found = run(stores, [WRITERS[writer](tmp_path, name, samples) for name, samples in heard.items()])
    # the clock class allows 76 ns, 23 m of way; these clocks err by none, and 8 bits cost a few dB
    assert found["error_m"] < 30.0
    assert found["inside_90"]
    assert found["ellipse_90"]["semi_major_m"] < 150.0


def test_unscaled_floats_are_scaled_by_what_is_stated(stores, tmp_path, heard):
    files = [write_unscaled(tmp_path, name, samples) for name, samples in heard.items()]
    found = run(stores, files, Stated(full_scale=2048.0))
    assert found["error_m"] < 30.0
    level = stores.measurements.find_session("call")["measurements"][0]["attributes"]["rms_dbfs"]
    assert level == pytest.approx(-20.0, abs=0.1)  # 0.1 of full scale


def test_channels_of_one_file_are_receivers(stores, tmp_path, heard):
    starts = dict.fromkeys(RECEIVERS, 250_000_000)
    together = receive(NUM_SAMPLES, RATE_HZ, starts)
    interleaved = np.stack(list(together.values()), axis=1).reshape(-1)
    file = write_sigmf(tmp_path, "RA", interleaved, "cf32_le", interleaved.tobytes(), **{"core:num_channels": 4})
    found = run(stores, [Handed(file, name, channel) for channel, name in enumerate(RECEIVERS, start=1)])
    assert found["error_m"] < 30.0


def test_kiwisdr_files_of_any_name_become_a_position(stores, tmp_path):
    rate_hz = 12_001.0
    start = datetime(2026, 11, 20, 10, 0, 0, tzinfo=UTC)
    files = []
    for name, samples in receive(512 * 470, rate_hz, dict.fromkeys(RECEIVERS, 0)).items():
        path = tmp_path / f"night {name.lower()}.wav"
        path.write_bytes(make_kiwisdr(samples, rate_hz=rate_hz, start=start, num_stale=0))
        files.append(Handed(path, name))
    stated = Stated(start_unix_ns=SECOND_NS + 3_600_000_000_000, frequency_hz=77_500.0)  # about then: within days
    found = run(stores, files, stated, ClockClass.NONE)
    assert found["error_m"] < 100.0  # against sigmas of 9 km the area where sources may be has a little weight
    assert found["inside_90"]
    assert found["ellipse_90"]["semi_major_m"] > 10_000.0  # receive filters of uncalibrated receivers: 30 us


def test_a_computers_clock_to_the_millisecond_gives_the_ellipse_it_deserves(stores, tmp_path, heard):
    for name, samples in heard.items():
        start = datetime(2026, 11, 20, 10, 0, 0, STARTS_NS[name] // 10**6 * 1000, tzinfo=UTC)
        (tmp_path / f"{name}.wav").write_bytes(make_iq_wav(to_pairs(samples), 16, rate_hz=int(RATE_HZ), start=start))
    found = run(stores, [tmp_path / f"{name}.wav" for name in RECEIVERS])
    # 289 us are 87 km of way: nothing better than that may be claimed
    assert found["inside_90"]
    assert found["ellipse_90"]["semi_minor_m"] > 50_000.0


@pytest.mark.parametrize(("digits", "claimed_m"), [(3, 50_000.0), (5, 500.0), (6, 50.0), (9, 10.0)])
def test_a_start_is_known_no_better_than_it_is_written(digits, claimed_m, stores, tmp_path, heard):
    for name, samples in heard.items():
        meta = write_sigmf(tmp_path, name, samples, "cf32_le", samples.tobytes())
        meta.write_text(meta.read_text().replace(write_time(name, 9), write_time(name, digits)))
    found = run(stores, [tmp_path / f"{name}.sigmf-meta" for name in RECEIVERS])
    assert found["inside_90"]
    assert found["ellipse_90"]["semi_minor_m"] > claimed_m


def test_the_archive_is_what_lay_in_the_folder(stores, tmp_path, heard):
    files = [write_dataset(tmp_path, name, samples) for name, samples in heard.items()]
    run(stores, files)
    for row in stores.measurements.find_session("call")["measurements"]:
        (tmp_path / "stored.tar").write_bytes(stores.objects.read_location(row["iq_data_location"], 10**8))
        with tarfile.open(tmp_path / "stored.tar") as archive:
            for member in archive:
                original = tmp_path / Path(member.name).name
                assert archive.extractfile(member).read() == original.read_bytes()
