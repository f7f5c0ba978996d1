"""Every reader, on damage by the thousand: one typed refusal or a finite recording, in bounded time and memory."""

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heimdall_assets.errors import InvalidInput
from heimdall_assets.formats import Stated
from heimdall_assets.formats.iq_wav import decode_iq_wav
from heimdall_assets.formats.kiwisdr import decode_kiwisdr
from heimdall_assets.formats.npy import decode_npy
from heimdall_assets.formats.sigmf import decode_sigmf
from heimdall_assets.tables.levels import decode_levels
from heimdall_assets.tables.receiver_list import decode_receivers
from heimdall_assets_tests.formats.recordings import (
    damage,
    make_iq_wav,
    make_kiwisdr,
    make_noise,
    make_npy,
    make_sigmf,
    to_pairs,
)
from heimdall_assets_tests.tables.test_table_text import as_json_lines, as_parquet
from heimdall_assets_tests.tables.test_wide_levels import CLAIM, RECEIVERS, TABLE

NOISE = make_noise(300)
STATED = Stated(sample_rate_hz=1e3)
LISTED = decode_receivers(RECEIVERS, name="r.json")
READERS = {
    "npy complex64": (make_npy(NOISE), lambda data: decode_npy(data, "f", STATED)),
    "npy int16": (make_npy(to_pairs(NOISE)), lambda data: decode_npy(data, "f", STATED)),
    "sigmf": (make_sigmf(NOISE), lambda data: decode_sigmf(data, "f")),
    "kiwisdr": (
        make_kiwisdr(make_noise(8 * 120), rate_hz=100.0, block=8, fix_every_s=2.0),
        lambda data: decode_kiwisdr(data, "20260304T120000Z_77500_AB1C_iq.wav"),
    ),
    "iq wav": (make_iq_wav(to_pairs(NOISE), 16), lambda data: decode_iq_wav(data, "f")),
    "levels, csv": (TABLE, lambda data: decode_levels(data, LISTED, name="f", claim=CLAIM)),
    "levels, json lines": (as_json_lines(TABLE), lambda data: decode_levels(data, LISTED, name="f", claim=CLAIM)),
    "levels, parquet": (as_parquet(TABLE), lambda data: decode_levels(data, LISTED, name="f", claim=CLAIM)),
    "receivers": (RECEIVERS, lambda data: decode_receivers(data, name="f")),
}
MAX_MEMORY_BYTES = 20_000_000  # a thousand times any of these files; a claimed size that is believed is far beyond


@pytest.mark.parametrize("reader", READERS)
def test_the_file_before_its_damage_is_read(reader):
    data, decode = READERS[reader]
    assert decode(data)


def survive(data, decode) -> None:
    started = time.process_time()
    try:
        found = decode(data)
        reason = ""
    except InvalidInput as refusal:
        found, reason = None, str(refusal)
    assert "\n" not in reason
    assert len(reason) < 500
    assert np.isfinite(getattr(found, "samples", np.zeros(1))).all()
    assert time.process_time() - started < 1.0


@pytest.mark.long
@pytest.mark.parametrize("reader", READERS)
def test_damage_by_the_thousand_is_survived_in_bounded_time_and_memory(reader):
    whole, decode = READERS[reader]
    decode(whole)  # what a format loads once does not count

    @settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(damage(whole) | st.binary(max_size=300).map(lambda tail: whole[:80] + tail))
    def run(data):
        survive(data, decode)

    tracemalloc.start()
    try:
        run()
        assert tracemalloc.get_traced_memory()[1] < 10 * MAX_MEMORY_BYTES
    finally:
        tracemalloc.stop()


HOSTILE = {
    "minus signs": b"\x93NUMPY\x01\x00" + (9900).to_bytes(2, "little") + b"-" * 9900,
    "terabyte": b"\x93NUMPY\x01\x00\x4a\x00{'descr': '<c8', 'fortran_order': False, 'shape': (1000000000000,), }    \n",
    "deep": make_sigmf(NOISE, b'{"global":' + b"[" * 100_000),
    "riff": b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x02\0\xe1.\0\0\x84\xbb\0\0\x04\0\x10\0kiwi\x0a\0\0\0"
    + b"\0" * 10
    + b"data\xfc\xff\xff\xff"
    + b"\0" * 40,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_files_cost_no_memory_whoever_reads_them(reader, hostile):
    whole, decode = READERS[reader]
    decode(whole)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput):
            decode(HOSTILE[hostile])
        assert tracemalloc.get_traced_memory()[1] < MAX_MEMORY_BYTES
    finally:
        tracemalloc.stop()
