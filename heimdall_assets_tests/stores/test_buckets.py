"""Buckets on a real S3 service: whole or not there, and each fault one line that holds no key."""

import pytest

from heimdall_assets.errors import InvalidSetting, NotFound, StorageError
from heimdall_assets.stores.objects.addresses import BucketAddress, parse_place
from heimdall_assets.stores.objects.buckets import PART_BYTES, Bucket


@pytest.fixture
def opened(bucket, s3) -> Bucket:
    return Bucket(parse_place(f"{bucket}/below/here", "objects"), s3.endpoint)


def test_what_is_put_is_read_whole_in_parts_and_in_ranges(opened):
    data = bytes(range(256)) * (PART_BYTES // 128)  # two parts
    opened.put("a/one", data)
    opened.put_stream("a/two", (data[start : start + 100_000] for start in range(0, len(data), 100_000)))
    assert opened.get("a/one") == opened.get("a/two") == data
    assert opened.get_ranges("a/two", [0, PART_BYTES - 5], [3, PART_BYTES + 5]) == [
        data[:3],
        data[PART_BYTES - 5 : PART_BYTES + 5],
    ]
    assert opened.head("a/one").size == len(data)
    assert list(opened.list_keys("a")) == ["a/one", "a/two"]
    opened.copy("a/one", "b/one")
    opened.remove(["a/one", "a/two", "a/never"])
    assert list(opened.list_keys()) == ["b/one"]


def test_an_upload_whose_source_fails_leaves_nothing(opened, s3):
    def fail():
        for _ in range(3):
            yield bytes(PART_BYTES)
        raise OSError("the source changed")

    with pytest.raises(StorageError):
        opened.put_stream("a", fail())
    assert opened.head("a") is None
    assert list(opened.list_keys()) == []


def test_what_is_not_there_is_told_from_what_cannot_be_read(opened, s3, monkeypatch):
    assert opened.head("nothing") is None
    with pytest.raises(NotFound, match=rf"{opened.address}/nothing: found nothing"):
        opened.get("nothing")
    opened.put("here", b"1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    denied = Bucket(opened.address, s3.endpoint)
    for ask in (lambda: denied.get("here"), lambda: denied.put("here", b"2"), lambda: list(denied.list_keys())):
        with pytest.raises(StorageError, match="403 SignatureDoesNotMatch") as caught:
            ask()
        told = str(caught.value)
        assert "\n" not in told
        assert s3.key not in told
        assert caught.value.__cause__ is None  # the library's own words repeat the key's id
    with pytest.raises(StorageError, match=r"could not be looked at \(403\)"):
        denied.head("here")


def test_a_service_out_of_reach_is_one_line(bucket, monkeypatch):
    monkeypatch.setattr("heimdall_assets.stores.objects.buckets.MAX_RETRIES", 0)
    away = Bucket(parse_place(bucket, "objects"), "http://127.0.0.1:1")
    with pytest.raises(StorageError, match=r"could not be read \(connection refused\)"):
        away.get("x")


def test_without_keys_it_says_where_they_are_looked_for(bucket, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(StorageError, match="found no keys; expected AWS_ACCESS_KEY_ID"):
        Bucket(parse_place(bucket, "objects")).head("x")


@pytest.mark.parametrize(
    ("address", "bucket", "prefix"),
    [
        ("s3://heimdall", "heimdall", ""),
        ("s3://heimdall/", "heimdall", ""),
        ("S3://raw-iq/a/b_c", "raw-iq", "a/b_c"),
        ("s3://raw.iq/v1.2/", "raw.iq", "v1.2"),
    ],
)
def test_an_address_is_a_bucket_and_a_prefix(address, bucket, prefix):
    place = parse_place(address, "objects")
    assert place == BucketAddress(bucket, prefix)
    assert parse_place(str(place), "objects") == place


@pytest.mark.parametrize(
    "address",
    ["s3://", "s3:/heimdall", "s3://a", "s3://Capital", "s3://a_b", "s3://ok-bucket//x", "s3://ok-bucket/../x",
     "s3://ok-bucket/x?y", "s3://ok-bucket/x#y", "s3://ok..bucket", "s3://ok-bucket/" + "x" * 300],
)  # fmt: skip
def test_another_address_of_s3_is_refused(address):
    with pytest.raises(InvalidSetting, match=r"^objects: found .*, expected s3://BUCKET/PREFIX$"):
        parse_place(address, "objects")


def test_keys_in_an_address_are_refused_and_not_repeated():
    with pytest.raises(InvalidSetting, match="expected s3://BUCKET/PREFIX alone") as caught:
        parse_place("s3://AKIA:canary@bucket/x", "objects")
    assert "canary" not in str(caught.value)
    assert "AKIA" not in str(caught.value)
