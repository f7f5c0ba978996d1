"""The object store, in a folder and in a bucket: what is read is what was put, whatever rests there, and nothing
outside is ever reached."""

import os
import secrets
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.errors import CorruptObject, InvalidIdentifier, InvalidInput, NotFound
from heimdall_assets.manifests import compute_digest
from heimdall_assets.stores.objects.interface import ObjectStore
from heimdall_assets.stores.objects.locations import parse_location, split_reference_name
from heimdall_assets_tests.stores.object_places import KINDS, FolderPlace, ObjectPlace, S3Place, key_of
from heimdall_assets_tests.stores.promises import FILE, find_broken, prepare, work

TYPE = "application/octet-stream"


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, quick_path: Path) -> ObjectPlace:
    """Where objects rest, of each kind in turn; recordings of others lie in a folder."""
    recordings = quick_path / "recordings"
    (recordings / "sessions" / "a").mkdir(parents=True)
    (recordings / "sessions" / "a" / "websdr_b.npy").write_bytes(b"samples")
    if request.param == "folder":
        return FolderPlace(quick_path, recordings)
    prefix = f"{request.getfixturevalue('bucket_of_module')}/{secrets.token_hex(6)}"
    return S3Place(prefix, recordings, request.getfixturevalue("s3").endpoint, quick_path)


@pytest.fixture
def store(place: ObjectPlace) -> ObjectStore:
    return place.store


@pytest.mark.parametrize("data", [b"", b"x", b"\x00" * 3_000_000])
def test_what_is_put_is_read(place: ObjectPlace, store: ObjectStore, data: bytes) -> None:
    artifact = store.put_bytes(data, TYPE)
    assert (artifact.digest, artifact.size, artifact.media_type) == (compute_digest(data), len(data), TYPE)
    assert store.read_bytes(artifact.digest) == place.open().read_bytes(artifact.digest) == data
    assert store.local_path(artifact.digest).read_bytes() == data
    assert store.read_location(f"sha256:{artifact.digest}", len(data)) == data
    assert store.exists(artifact.digest)
    assert list(store.list_digests()) == [artifact.digest]
    assert place.read(key_of(artifact.digest)) == data


def test_a_file_is_put_by_its_bytes(store: ObjectStore, quick_path: Path) -> None:
    big = os.urandom(2_500_000)
    (quick_path / "big").write_bytes(big)
    artifact = store.put_file(quick_path / "big", TYPE)
    assert artifact == store.put_bytes(big, TYPE)
    assert store.read_bytes(artifact.digest) == big
    assert (quick_path / "big").read_bytes() == big
    for absent in (quick_path / "absent", quick_path):
        with pytest.raises(NotFound, match="found no file"):
            store.put_file(absent, TYPE)


def test_digests_are_listed_in_order(place: ObjectPlace, store: ObjectStore) -> None:
    artifacts = store.put_all([bytes([number]) for number in range(12)], TYPE)
    assert [artifact.digest for artifact in artifacts] == [compute_digest(bytes([number])) for number in range(12)]
    digests = sorted(artifact.digest for artifact in artifacts)
    for stray in (".tmp-0123", "stray"):
        place.write(f"objects/sha256/{digests[0][:2]}/{stray}", b"not ours")
    assert list(store.list_digests()) == digests
    absent = compute_digest(b"never put")
    assert store.find_present([*digests, absent]) == set(digests)
    assert store.find_present([]) == set()


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "swap", "grow"])
def test_damage_is_found_named_and_healed_by_putting_again(place: ObjectPlace, store: ObjectStore, damage: str) -> None:
    data, other = os.urandom(5000), os.urandom(5000)
    digest = store.put_bytes(data, TYPE).digest
    wrong = {
        "flip": bytes([data[0] ^ 1]) + data[1:],
        "truncate": data[:-1],
        "empty": b"",
        "swap": other,
        "grow": data + b"\x00",
    }[damage]
    place.write(key_of(digest), wrong)
    for fresh in (place.open(), store.at_rest()):
        reads = (fresh.read_bytes, fresh.local_path, lambda name: fresh.read_location(f"sha256:{name}", 10_000))  # noqa: B023
        for read in reads:
            with pytest.raises(CorruptObject) as caught:
                read(digest)
            said = f"object {digest}: found bytes with SHA-256 {compute_digest(wrong)}, expected {digest}"
            assert str(caught.value).startswith(said)
    assert store.put_bytes(data, TYPE).digest == digest
    assert place.open().read_bytes(digest) == data


def test_damage_is_set_aside_and_what_is_whole_stays(place: ObjectPlace, store: ObjectStore) -> None:
    whole, damaged = store.put_bytes(b"whole", TYPE).digest, store.put_bytes(b"damaged", TYPE).digest
    place.write(key_of(damaged), b"wrong")
    assert [store.set_aside(digest) for digest in (whole, damaged, compute_digest(b"never put"))] == [
        False,
        True,
        False,
    ]
    assert store.find_present([whole, damaged]) == {whole}
    assert place.read(f"damaged/{damaged}") == b"wrong"
    with pytest.raises(NotFound, match="expected it stored before"):
        store.write_reference("results/a", damaged)
    store.put_bytes(b"damaged", TYPE)
    assert place.open().read_bytes(damaged) == b"damaged"


def test_what_is_not_there_is_said_so(place: ObjectPlace, store: ObjectStore) -> None:
    digest = compute_digest(b"never put")
    for read in (store.read_bytes, store.local_path):
        with pytest.raises(NotFound, match=f"object {digest}: found nothing in "):
            read(digest)
    assert not store.exists(digest)
    assert list(store.list_digests()) == []
    assert store.list_references() == []


@pytest.mark.parametrize("digest", ["", "../../secret", "ab", "A" * 64, "a" * 63 + "\n", "a" * 65, None, 7])
def test_only_digests_name_objects(store: ObjectStore, digest: str) -> None:
    for ask in (store.read_bytes, store.local_path, store.exists):
        with pytest.raises(InvalidIdentifier, match="expected a SHA-256"):
            ask(digest)


def test_one_piece_of_work_keeps_its_promises(place: ObjectPlace, store: ObjectStore, quick_path: Path) -> None:
    before, told = prepare(store), list[str]()
    (quick_path / "source").write_bytes(FILE)
    work(store, quick_path / "source", told.append)
    assert len(told) == 5
    assert find_broken(place.open(), told, before) == []


# --- references


def test_references_point_and_move(store: ObjectStore) -> None:
    one, two = store.put_bytes(b"1", TYPE).digest, store.put_bytes(b"2", TYPE).digest
    assert store.read_reference("results/a") is None
    store.write_reference("results/a", one)
    store.write_reference("results/a/b", one)  # a name may be the beginning of another
    store.write_reference("features/c", two)
    assert store.read_reference("results/a") == one
    store.write_reference("results/a", two)
    assert store.read_reference("results/a") == two
    assert store.list_references() == ["features/c", "results/a", "results/a/b"]
    assert store.list_references("results/") == ["results/a", "results/a/b"]


def test_a_reference_comes_after_its_object(store: ObjectStore) -> None:
    with pytest.raises(NotFound, match="expected it stored before"):
        store.write_reference("results/a", compute_digest(b"never put"))
    assert store.list_references() == []


def test_damaged_and_swapped_references_are_found_and_healed(place: ObjectPlace, store: ObjectStore) -> None:
    one, two = store.put_bytes(b"1", TYPE).digest, store.put_bytes(b"2", TYPE).digest
    store.write_reference("results/a", one)
    store.write_reference("results/b", two)
    first, second = "references/results/a@", "references/results/b@"
    written = place.read(first)
    for position in range(0, len(written), place.step):
        place.write(first, written[:position] + bytes([written[position] ^ 1]) + written[position + 1 :])
        with pytest.raises(CorruptObject, match="reference results/a"):
            store.read_reference("results/a")
    for damaged in (b"", written[:-1], place.read(second), written * 2):
        place.write(first, damaged)
        with pytest.raises(CorruptObject, match="reference results/a"):
            store.read_reference("results/a")
    store.write_reference("results/a", one)
    assert store.read_reference("results/a") == one


# --- names and locations

HOSTILE = [
    "",
    ".",
    "..",
    "/etc/passwd",
    "../secret",
    "sessions/../../secret",
    "sessions//a",
    "sessions/./a",
    "sessions/a/",
    "a\\b",
    "..\\secret",
    "file:///etc/passwd",
    "s3://bucket/key",
    "http://host/a",
    "//host/share",
    "a?b",
    "a#b",
    "a;b",
    "a%2e%2e",
    "a\x00b",
    "a\nb",
    "sha256:../../secret",
    "sha256:" + "a" * 63,
    "SHA256:" + "a" * 64,
    "-rf",
    ".hidden",
    "~root",
    "$HOME",
    "a:b",
    "ä",
    "a" * 256,
    "/".join(["a"] * 17),
]


@pytest.mark.parametrize("location", HOSTILE)
def test_hostile_locations_are_refused(store: ObjectStore, location: str) -> None:
    with pytest.raises(InvalidIdentifier):
        store.read_location(location, 1000)
    with pytest.raises(InvalidIdentifier):
        store.write_reference(location, compute_digest(b"x"))


def test_recordings_of_others_are_read_below_their_root(store: ObjectStore) -> None:
    assert store.read_location("sessions/a/websdr_b.npy", 7) == b"samples"
    with pytest.raises(InvalidInput, match="found 7 bytes, expected at most 6"):
        store.read_location("sessions/a/websdr_b.npy", 6)
    digest = store.put_bytes(b"samples", TYPE).digest
    with pytest.raises(InvalidInput, match="found 7 bytes, expected at most 6"):
        store.read_location(f"sha256:{digest}", 6)
    for absent in ("sessions/a/websdr_c.npy", "sessions/z/websdr_b.npy", "sessions/a/websdr_b.npy/c"):
        with pytest.raises(NotFound):
            store.read_location(absent, 1000)


@given(st.text(alphabet=st.sampled_from("ab/.\\:?#;%~\x00\n -"), max_size=24) | st.text(max_size=24))
@settings(max_examples=300, deadline=None)
def test_a_location_is_refused_or_stays_below_the_root(text: str) -> None:
    for parse in (parse_location, split_reference_name):
        try:
            parsed = parse(text)
        except InvalidIdentifier:
            continue
        parts = parsed if isinstance(parsed, list) else parsed.parts
        below = Path("/root/of/all").joinpath(*parts)
        assert Path(os.path.normpath(below)) == below
        assert below != Path("/root/of/all")
        assert "/".join(parts) == text


# --- what was used lately, and what may go

HOUR_S = 3600.0


def test_only_what_was_not_used_since_goes(place: ObjectPlace, store: ObjectStore) -> None:
    digest = store.put_bytes(b"kept", TYPE).digest
    store.write_reference("results/a", digest)
    (resting,), (named,) = list(store.list_resting()), list(store.list_resting_references())
    assert (resting.name, resting.size, named.name) == (digest, 4, "results/a")
    assert abs(resting.used_at - time.time()) < HOUR_S
    assert abs(named.used_at - time.time()) < HOUR_S
    before, after = time.time() - HOUR_S, time.time() + HOUR_S
    assert not store.remove_object(digest, before)
    assert not store.remove_reference("results/a", before)
    assert store.renew_reference("results/a")
    assert place.open().renew_reference("results/a")
    assert store.read_bytes(digest) == b"kept"
    for _ in range(2):  # what is gone already is gone
        assert store.remove_reference("results/a", after)
        assert store.remove_object(digest, after)
    assert not store.renew_reference("results/a")
    assert store.read_reference("results/a") is None
    for opened in (store, place.open()):
        assert not opened.exists(digest)
        with pytest.raises(NotFound, match="found nothing in"):
            opened.read_bytes(digest)  # no copy is left either
    assert list(store.list_resting()) == list(store.list_resting_references()) == []
    store.write_reference("results/a", store.put_bytes(b"kept", TYPE).digest)
    assert place.open().read_bytes(digest) == b"kept"
