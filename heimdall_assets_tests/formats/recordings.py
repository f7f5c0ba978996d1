"""Small recordings in each format, made from what their formats say, and ways to damage them."""

import io
import json
import struct
import tarfile
from datetime import UTC, datetime

import numpy as np
from hypothesis import strategies as st

GPS_EPOCH = datetime(1980, 1, 6, tzinfo=UTC)
START = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)


def make_noise(num_samples: int, seed: int = 0, scale: float = 0.1) -> np.ndarray:
    """Complex noise on the grid of int16, so that every format carries it exactly."""
    parts = np.random.default_rng(seed).normal(0.0, scale, (num_samples, 2))
    return (np.rint(np.clip(parts, -0.99, 0.99) * 32768) / 32768).astype(np.float32).view(np.complex64)[:, 0]


def to_pairs(samples: np.ndarray) -> np.ndarray:
    return np.rint(samples.view(np.float32).reshape(-1, 2) * 32768).astype("<i2")


def make_npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=array.dtype == object)
    return stream.getvalue()


def make_npy_with_header(header: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    length = struct.pack("<H" if version[0] == 1 else "<I", len(header))
    return b"\x93NUMPY" + version + length + header.encode() + body


def make_kiwisdr(
    samples: np.ndarray,
    *,
    rate_hz: float = 12_001.2,
    header_rate_hz: int | None = None,
    start: datetime = START,
    leap_s: int = 18,
    block: int = 512,
    fix_every_s: float = 5.0,
    first_fix_s: float = 1.0,
    jitter_ns: float = 0.0,
    drift: float = 0.0,
    num_stale: int = 1,
    stamp_errors_ns: dict[int, float] | None = None,
    ages: dict[int, int] | None = None,
    seed: int = 0,
) -> bytes:
    """A recording whose sample 0 was taken at ``start``: stamps jitter at each fix and are extrapolated in between.

    ``drift`` is the relative error of that extrapolation; the first ``num_stale`` stamps are five minutes old.
    """
    rng = np.random.default_rng(seed)
    pairs = to_pairs(samples)[: len(samples) // block * block]
    elapsed = start - GPS_EPOCH
    start_ns = (elapsed.days * 86_400 + elapsed.seconds + leap_s) * 10**9 + elapsed.microseconds * 1000
    out, last_fix, age_s, error_ns = [], -fix_every_s, 3.0, 0.0
    next_fix = first_fix_s
    for index in range(len(pairs) // block):
        true_ns = index * block / rate_hz * 1e9
        if true_ns >= next_fix * 1e9:
            last_fix, next_fix = true_ns, next_fix + fix_every_s
            error_ns = rng.normal(0.0, jitter_ns) if jitter_ns else 0.0
            age_s = 0.0
        elif index:
            age_s += block / rate_hz
        offset_ns = true_ns + error_ns + drift * (true_ns - max(last_fix, 0.0))
        offset_ns += (stamp_errors_ns or {}).get(index, 0.0) - (300e9 if index < num_stale else 0.0)
        week_ns = (start_ns + round(offset_ns)) % (604_800 * 10**9)
        age = (ages or {}).get(index, min(int(age_s), 253))
        out.append(b"kiwi" + struct.pack("<IBBII", 10, age, 0, *divmod(week_ns, 10**9)))
        content = pairs[index * block : (index + 1) * block].tobytes()
        out.append(b"data" + struct.pack("<I", len(content)) + content)
    rate = round(rate_hz) if header_rate_hz is None else header_rate_hz
    body = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 2, rate, rate * 4, 4, 16) + b"".join(out)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def make_iq_wav(
    pairs: np.ndarray,
    bits: int,
    *,
    rate_hz: int = 48_000,
    kind: int = 1,
    start: datetime | None = None,
    centre_frequency_hz: int = 145_500_000,
) -> bytes:
    """Two channels of PCM or float samples, (N, 2) as they lie in the file; with ``start`` an auxi chunk, too."""
    content = pairs.tobytes()
    if bits == 24:
        content = pairs.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    chunks = [(b"fmt ", struct.pack("<HHIIHH", kind, 2, rate_hz, rate_hz * bits // 4, bits // 4, bits))]
    if start is not None:
        parts = (
            start.year,
            start.month,
            0,
            start.day,
            start.hour,
            start.minute,
            start.second,
            start.microsecond // 1000,
        )
        auxi = struct.pack("<8H", *parts) * 2 + struct.pack("<9I", centre_frequency_hz, *[0] * 8)
        chunks.append((b"auxi", auxi))
    chunks.append((b"data", content))
    body = b"WAVE" + b"".join(
        name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def make_sigmf_metadata(datatype: str = "cf32_le", **changes: object) -> dict:
    """Metadata of one capture; ``changes`` set global fields, None removes them."""
    described = {"core:datatype": datatype, "core:sample_rate": 48_000, "core:version": "1.0.0"}
    described |= {f"core:{name}": value for name, value in changes.items()}
    capture = {"core:sample_start": 0, "core:frequency": 145.5e6, "core:datetime": "2026-03-04T12:00:00.123456789Z"}
    return {
        "global": {name: value for name, value in described.items() if value is not None},
        "captures": [capture],
        "annotations": [],
    }


def make_tar(members: list[tuple[str, bytes]], kind: bytes = tarfile.REGTYPE) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size, member.type = len(content), kind
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                member.linkname, member.size = "/etc/passwd", 0
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def make_sigmf(samples: np.ndarray, metadata: dict | bytes | None = None) -> bytes:
    metadata = make_sigmf_metadata() if metadata is None else metadata
    raw = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    return make_tar([("x/x.sigmf-meta", raw), ("x/x.sigmf-data", samples.tobytes())])


@st.composite
def damage(draw: st.DrawFn, data: bytes) -> bytes:
    """``data`` with up to four bytes flipped, pieces cut out, put in, or its end lost."""
    damaged = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        # headers are where damage is interesting; most of a file is samples
        limit = draw(st.sampled_from([64, 256, 2048, len(data)]))
        place = draw(st.integers(0, max(0, min(limit, len(damaged)) - 1)))
        action = draw(st.sampled_from(["flip", "overwrite", "cut", "insert", "truncate"]))
        if action == "flip" and damaged:
            damaged[place] ^= 1 << draw(st.integers(0, 7))
        elif action == "overwrite":
            piece = draw(st.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"-" * 9, b"("]))
            damaged[place : place + len(piece)] = piece
        elif action == "cut":
            del damaged[place : place + draw(st.integers(1, 600))]
        elif action == "insert":
            damaged[place:place] = draw(st.binary(min_size=1, max_size=40))
        elif action == "truncate":
            del damaged[place:]
    return bytes(damaged)
