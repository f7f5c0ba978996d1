"""Objects in a bucket through a bad network: what fails is tried again, what is wrong never used, requests are few."""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from heimdall_assets.errors import CorruptObject, InvalidIdentifier, InvalidInput, NotFound, OutOfReach, StorageError
from heimdall_assets.manifests import compute_digest
from heimdall_assets.stores.objects import bucket_faults, buckets
from heimdall_assets.stores.objects.addresses import BucketAddress, parse_place
from heimdall_assets.stores.objects.buckets import PART_BYTES, Bucket
from heimdall_assets.stores.objects.s3 import SENT_UNASKED_BYTES
from heimdall_assets_tests.fault_proxy import Fault, FaultProxy, run_proxy
from heimdall_assets_tests.stores.object_places import FolderPlace, S3Place, key_of

TYPE = "application/octet-stream"
LARGE = 2 * PART_BYTES + 1000


@pytest.fixture
def proxy(s3) -> Iterator[FaultProxy]:
    with run_proxy(s3.endpoint) as running:
        yield running


@pytest.fixture
def place(bucket: str, proxy: FaultProxy, quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Place:
    monkeypatch.setattr(buckets, "MAX_RETRIES", 3)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
    return S3Place(f"{bucket}/home", quick_path / "recordings", proxy.endpoint, quick_path)


# --- requests


def test_small_things_cost_as_few_requests_as_they_can(place: S3Place, proxy: FaultProxy):
    digest = place.store.put_bytes(b"one", TYPE).digest
    assert proxy.count() == {"HEAD": 1, "PUT": 1}
    place.store.put_bytes(b"one", TYPE)
    assert proxy.count() == {"HEAD": 1}  # an equal object is not sent again
    place.store.write_reference("results/a", digest)
    assert proxy.count() == {"PUT": 1}  # this process has seen the object whole
    assert place.store.read_reference("results/a") == digest
    assert place.store.read_reference("results/b") is None
    assert proxy.count() == {"GET": 2}
    for _ in range(3):
        assert place.store.read_bytes(digest) == place.store.local_path(digest).read_bytes() == b"one"
    assert proxy.count() == {}  # what was put is at hand
    assert place.store.exists(digest)
    assert proxy.count() == {"HEAD": 1}
    fresh = place.open()
    fresh.write_reference("results/c", digest)
    assert proxy.count() == {"HEAD": 1, "PUT": 1}
    for _ in range(3):
        assert fresh.read_bytes(digest) == b"one"
    assert proxy.count() == {"GET": 1}


def test_a_large_file_goes_and_comes_in_parts(place: S3Place, proxy: FaultProxy, quick_path: Path):
    data = os.urandom(LARGE)
    (quick_path / "large").write_bytes(data)
    artifact = place.store.put_file(quick_path / "large", TYPE)
    assert proxy.count() == {"HEAD": 1, "POST": 2, "PUT": 3}
    assert (artifact.digest, artifact.size) == (compute_digest(data), LARGE)
    assert place.store.put_file(quick_path / "large", TYPE) == place.store.put_bytes(data, TYPE) == artifact
    assert proxy.count() == {"HEAD": 2}  # the service's MD5 of the parts says that it is whole
    fresh = place.open()
    assert fresh.read_bytes(artifact.digest) == data
    assert proxy.count() == {"GET": 4}  # its size, and a range for each part
    assert fresh.local_path(artifact.digest).read_bytes() == data
    assert proxy.count() == {}
    with pytest.raises(InvalidInput, match=f"found {LARGE} bytes, expected at most 10"):
        place.open().read_location(f"sha256:{artifact.digest}", 10)
    with pytest.raises(InvalidInput, match=f"found {LARGE} bytes, expected at most 10"):
        fresh.read_location(f"sha256:{artifact.digest}", 10)


def test_an_object_whose_e_tag_says_nothing_is_read_and_verified(place: S3Place, proxy: FaultProxy):
    digest = place.store.put_bytes(b"one", TYPE).digest
    place.bucket.put_stream(key_of(digest), iter([b"one"]))  # of one part: still known
    proxy.count()
    place.open().put_bytes(b"one", TYPE)
    assert proxy.count() == {"HEAD": 1}
    place.bucket.put_stream(key_of(digest), iter([b"two"]))  # of the same size
    proxy.count()
    place.open().put_bytes(b"one", TYPE)
    assert proxy.count() == {"HEAD": 1, "GET": 1, "PUT": 1}
    assert place.open().read_bytes(digest) == b"one"


# --- faults


def test_what_the_service_refuses_for_now_is_tried_again(place: S3Place, proxy: FaultProxy):
    proxy.faults = [Fault("refuse", method, times=2) for method in ("GET", "PUT", "HEAD")]
    digest = place.store.put_bytes(b"one", TYPE).digest
    assert place.open().read_bytes(digest) == b"one"
    assert proxy.count() == {"HEAD": 3, "PUT": 3, "GET": 3}


def test_what_it_refuses_for_good_is_one_line(place: S3Place, proxy: FaultProxy):
    digest = place.store.put_bytes(b"one", TYPE).digest
    proxy.faults = [Fault("refuse", method) for method in ("GET", "PUT", "HEAD")]
    fresh = place.open()
    asks = {
        "read (503 SlowDown)": lambda: fresh.read_bytes(digest),
        "looked at (503)": lambda: fresh.put_bytes(b"two", TYPE),
    }
    for what, ask in asks.items():
        with pytest.raises(StorageError) as caught:
            ask()
        assert str(caught.value).endswith(f"could not be {what}")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "AccessDenied"])
def test_keys_that_end_in_the_middle_are_one_line_at_once(place: S3Place, proxy: FaultProxy, s3, code: str):
    digest = place.store.put_bytes(b"one", TYPE).digest
    proxy.count()
    proxy.faults = [Fault("refuse", "GET", status=403, code=code)]
    # Of one object a policy may say so; keys that ended say it of all of them.
    kind = StorageError if code == "AccessDenied" else OutOfReach
    with pytest.raises(kind, match=rf"could not be read \(403 {code}\)") as caught:
        place.open().read_bytes(digest)
    assert type(caught.value) is kind
    assert proxy.count() == {"GET": 1}
    assert s3.key not in str(caught.value)


def test_slow_answers_are_waited_for_and_silence_is_not(place: S3Place, proxy: FaultProxy, monkeypatch):
    digest = place.store.put_bytes(b"one", TYPE).digest
    proxy.faults = [Fault("slow", "GET", times=1, delay_s=0.5)]
    assert place.open().read_bytes(digest) == b"one"
    monkeypatch.setattr(buckets, "REQUEST_S", 0.3)
    monkeypatch.setattr(buckets, "MAX_RETRIES", 1)
    place.bucket = Bucket(place.address, proxy.endpoint)
    proxy.faults = [Fault("slow", "GET", delay_s=1.0)]
    with pytest.raises(StorageError, match=r"could not be read \(timed out\)"):
        place.open().read_bytes(digest)


@pytest.mark.parametrize("size", [100_000, LARGE])
def test_an_answer_that_is_cut_is_asked_for_again(place: S3Place, proxy: FaultProxy, size: int):
    data = os.urandom(size)
    digest = place.store.put_bytes(data, TYPE).digest
    proxy.faults = [Fault("cut", "GET", times=1)]
    assert place.open().read_bytes(digest) == data
    proxy.faults = [Fault("cut", "GET")]
    with pytest.raises(StorageError, match=r"could not be read \(the connection was cut\)"):
        place.open().read_bytes(digest)


@pytest.mark.parametrize("act", ["cut_upload", "lose"])
def test_an_upload_that_is_cut_is_sent_again_and_never_shows_in_part(place: S3Place, proxy: FaultProxy, act: str):
    data = os.urandom(100_000)
    proxy.faults = [Fault(act, "PUT", times=1)]
    digest = place.store.put_bytes(data, TYPE).digest
    assert place.open().read_bytes(digest) == data
    proxy.faults = [Fault("cut_upload", "PUT")]
    with pytest.raises(StorageError, match="could not be stored"):
        place.store.put_bytes(data + b"more", TYPE)
    assert list(place.store.list_digests()) == [digest]


@pytest.mark.parametrize(("size", "num_requests"), [(1000, 1), (LARGE, 4)])
def test_wrong_bytes_on_the_way_are_named_and_not_asked_for_again(
    place: S3Place, proxy: FaultProxy, size: int, num_requests: int
):
    data = os.urandom(size)
    digest, fresh = place.store.put_bytes(data, TYPE).digest, place.open()
    for read in (fresh.read_bytes, fresh.local_path):
        proxy.count()
        proxy.faults = [Fault("flip", "GET", times=2)]  # of a large one: the answer that tells its size, and a part
        with pytest.raises(CorruptObject, match=f"object {digest}: found bytes with SHA-256"):
            read(digest)
        assert proxy.count() == {"GET": num_requests}
        assert [path for path in fresh.cache.root.rglob("*") if path.is_file()] == []
    proxy.faults = []
    assert fresh.read_bytes(digest) == data
    proxy.count()
    fresh.put_bytes(data, TYPE)  # seen wrong once: it is sent again, whatever its ETag says
    assert proxy.count()["HEAD"] == 0


def test_a_file_that_changes_while_it_is_put_is_refused(place: S3Place, quick_path: Path):
    source = quick_path / "growing"
    source.write_bytes(bytes(LARGE))

    class Meddling(Bucket):
        def put_stream(self, key, chunks):
            source.write_bytes(bytes(LARGE - 1) + b"1")
            return super().put_stream(key, chunks)

    place.store.bucket = Meddling(place.address, place.endpoint)
    with pytest.raises(StorageError, match="changed while it was being stored"):
        place.store.put_file(source, TYPE)
    assert list(place.store.list_digests()) == []


def test_a_bucket_that_is_not_there_is_one_line(s3, bucket: str, quick_path: Path):
    away = S3Place("s3://never-made", quick_path, s3.endpoint, quick_path)
    with pytest.raises(StorageError, match=r"could not be stored \(found no bucket never-made, expected one\)"):
        away.store.put_bytes(b"one", TYPE)


def test_a_store_is_handed_to_another_process_but_not_to_a_fork(place: S3Place, monkeypatch):
    digest = place.store.put_bytes(b"one", TYPE).digest
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(place.store.exists, digest).result(60.0)
    monkeypatch.setattr(bucket_faults, "_asked_in", [os.getpid() + 1])  # a fork of this process would wait for ever
    with pytest.raises(StorageError, match="forked from one that spoke to S3"):
        place.store.exists(digest)


# --- recordings of others


@pytest.mark.parametrize("objects", ["folder", "s3"])
@pytest.mark.parametrize("recordings", ["folder", "s3"])
def test_objects_and_recordings_rest_in_either_kind_of_place(
    objects: str, recordings: str, bucket: str, s3, quick_path: Path
):
    raw = parse_place(f"{bucket}/raw", "recordings")
    assert isinstance(raw, BucketAddress)
    for name in ("sessions/a/websdr_b.npy", "sessions/a/w.npy"):
        Bucket(raw, s3.endpoint).put(name, b"samples")
        (quick_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (quick_path / "raw" / name).write_bytes(b"samples")
    others = quick_path / "raw" if recordings == "folder" else raw
    if objects == "folder":
        store = FolderPlace(quick_path, others, s3.endpoint).store
    else:
        store = S3Place(f"{bucket}/home", others, s3.endpoint, quick_path).store
    digest = store.put_bytes(b"object", TYPE).digest
    assert store.read_location(f"sha256:{digest}", 6) == b"object"
    assert store.read_location("sessions/a/websdr_b.npy", 7) == b"samples"
    with pytest.raises(InvalidInput, match="found 7 bytes, expected at most 6"):
        store.read_location("sessions/a/websdr_b.npy", 6)
    with pytest.raises(NotFound):
        store.read_location("sessions/a/never.npy", 7)
    full = f"{raw}/sessions/a/websdr_b.npy"
    elsewhere = [f"{bucket}/sessions/a/w.npy", f"{bucket}/rawer/x", str(raw), "s3://other/raw/sessions/a/w.npy"]
    if recordings == "s3":
        assert store.read_location(full, 7) == b"samples"
    else:
        elsewhere.append(full)
    for location in elsewhere:
        with pytest.raises(InvalidIdentifier) as caught:
            store.read_location(location, 7)
        said = f"location {location}: lies outside of HEIMDALL_RECORDINGS, which is {others}; no row makes us read "
        said += "elsewhere"
        assert str(caught.value) == said
    for hostile in (
        f"{raw}/../x",
        f"{raw}//x",
        "s3://key:secret@bucket/x",
        f"{raw}/x?y",
        "s3://",
        "s3:///x",
        "S3://a/b",
    ):
        with pytest.raises(InvalidIdentifier) as caught:
            store.read_location(hostile, 7)
        assert "secret" not in str(caught.value)


def test_of_many_at_once_small_ones_are_sent_without_being_asked_for(place: S3Place, proxy: FaultProxy):
    parts = [b"one", b"two", bytes(SENT_UNASKED_BYTES + 1)]
    for sent in (3, 2):  # the long one is there the second time, and says so
        place.store.put_all(parts, TYPE)
        assert proxy.count() == {"HEAD": 1, "PUT": sent}
