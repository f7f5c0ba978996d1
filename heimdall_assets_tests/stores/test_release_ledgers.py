"""The ledger of releases: in our database, beside a folder, or where HEIMDALL_LEDGER_URL says; never in the field's."""

from pathlib import Path

import pytest

from heimdall_assets.errors import InvalidSetting
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.releases.ledger import find_ledger
from heimdall_assets_tests.stores.releasing import open_at, publish
from heimdall_assets_tests.stores.test_database import field_url, read_state  # noqa: F401


@pytest.fixture
def field(field_url: str) -> MeasurementStore:  # noqa: F811
    """A database of the field, opened."""
    store = MeasurementStore(field_url)
    store.upgrade()
    return store


def read_field(url: str) -> object:
    """Return what the field's database holds, whatever else lies beside its file."""
    return Path(url.removeprefix("sqlite:///")).read_bytes() if url.startswith("sqlite") else read_state(url)


def test_releases_of_the_fields_data_have_a_database_beside_their_folder(
    field: MeasurementStore, quick_path: Path
) -> None:
    models = quick_path / "models"
    releases = open_at(str(models), field)
    assert releases.list_releases() == releases.list_promotion_events() == releases.put_right() == []
    assert not releases.is_published("v1.0.0")
    assert not models.exists()
    version = publish(releases)
    assert releases.resolve("latest") == version
    releases.set_alias("champion", version, "ada", "first")
    assert (models / "releases.db").is_file()
    again = open_at(str(models), field)
    assert again.list_releases()[0]["aliases"] == ["champion"]
    assert again.put_right() == again.check_ledger() == []


def test_releases_of_the_fields_data_in_a_bucket_have_the_ledger_that_is_named(
    field: MeasurementStore,
    field_url: str,  # noqa: F811
    bucket: str,
    empty_url: str,
) -> None:
    before = read_field(field_url)
    with pytest.raises(
        InvalidSetting, match=r"^HEIMDALL_LEDGER_URL: found none, expected sqlite:///FILE or postgresql"
    ):
        open_at(bucket, field)
    first, second = (open_at(bucket, field, ledger_url=empty_url) for _ in range(2))  # two machines
    assert first.list_releases() == second.put_right() == []
    version = publish(first)
    second.set_alias("champion", version, "ada", "first")
    assert first.list_releases() == second.list_releases()
    assert publish(second, "minor", extra=b"1") == "v1.1.0"
    assert first.resolve("latest") == "v1.1.0"
    assert first.resolve("champion") == version
    assert first.check_ledger() == []
    assert read_field(field_url) == before


def test_a_ledger_that_is_not_ours_or_not_needed_is_refused(field_url: str, quick_path: Path) -> None:  # noqa: F811
    field = MeasurementStore(field_url)
    field.upgrade()
    with pytest.raises(InvalidSetting, match=r"^HEIMDALL_LEDGER_URL: .* is the field's own, expected an empty one"):
        find_ledger(field.database, quick_path / "models", field_url)
    ours = MeasurementStore(f"sqlite:///{quick_path / 'ours.db'}")
    ours.upgrade()
    with pytest.raises(InvalidSetting, match=r"^HEIMDALL_LEDGER_URL: found an address, expected none") as caught:
        find_ledger(ours.database, quick_path / "models", "postgresql://ada:canary@host/releases")
    assert "canary" not in str(caught.value)
