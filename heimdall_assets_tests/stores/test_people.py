"""Names of people: kept apart from what is kept for ever, tied to their pseudonyms, and forgotten when asked."""

import pytest

from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import NotFound, Refused
from heimdall_assets.people import (
    ITSELF,
    is_pseudonym,
    make_pseudonym,
    name_people,
    name_people_in_html,
)
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.database.people import name_person
from heimdall_assets_tests.stores.batches import make_batch
from heimdall_assets_tests.stores.releasing import open_at

NAMES = ["Ada", "Änne Ö.", "a person: of course", "x" * 500, "O'Brien <o@brien>"]


def test_each_person_has_one_pseudonym_and_it_tells_nothing(store: MeasurementStore) -> None:
    with store.database.writing() as connection:
        given = {name: name_person(connection, name) for name in NAMES}
        assert {name: name_person(connection, name) for name in NAMES} == given
        assert name_person(connection, given["Ada"]) == given["Ada"]
        assert name_person(connection, ITSELF) == ITSELF
    assert len(set(given.values())) == len(NAMES)
    assert all(map(is_pseudonym, given.values()))
    assert store.read_names() == {pseudonym: name for name, pseudonym in given.items()}
    assert make_pseudonym(b"a" * 32, "Ada") != make_pseudonym(b"b" * 32, "Ada")


def test_nothing_that_is_kept_for_ever_holds_a_name(store: MeasurementStore) -> None:
    batch = make_batch()
    store.add(batch)
    ids = [session.id for session in batch.sessions]
    store.decide(ids, ApprovalStatus.APPROVED, "Ada Lovelace", "heard")
    kept = [*store.list_approval_events(), *store.list_decisions(range(1, 9))]
    assert "Lovelace" not in str(kept)
    assert {event["decided_by"] for event in store.list_approval_events()} == set(store.read_names())
    assert name_people(kept, store.read_names)[0]["decided_by"] == "Ada Lovelace"


def test_a_name_is_erased_once_and_who_comes_back_is_new(store: MeasurementStore) -> None:
    releases = open_at("/nowhere", store)
    batch = make_batch()
    store.add(batch)
    (first, second, _) = [session.id for session in batch.sessions]
    store.decide([first], ApprovalStatus.APPROVED, "ada", "heard")
    (before,) = store.read_names()
    with pytest.raises(Refused, match="expected a text that is not blank"):
        releases.erase_person("ada", "bob", " ")
    assert releases.erase_person(before, "bob", "she asked") == before  # by pseudonym too
    assert list(store.read_names().values()) == ["bob"]
    with pytest.raises(NotFound, match="person ada: found nobody of this name"):
        releases.erase_person("ada", "bob", "again")
    (erasure,) = store.list_erasures()
    assert (erasure.person, erasure.session, erasure.objects, erasure.reason) == (before, None, (), "she asked")
    store.decide([second], ApprovalStatus.APPROVED, "ada", "heard")
    assert len(store.read_names()) == 2
    assert before not in store.read_names()
    assert store.check_ledger() == []


def test_who_erases_themselves_is_gone_too(store: MeasurementStore) -> None:
    releases = open_at("/nowhere", store)
    batch = make_batch()
    store.add(batch)
    store.decide([batch.sessions[0].id], ApprovalStatus.APPROVED, "ada", "heard")
    releases.erase_person("ada", "ada", "I asked")
    assert store.read_names() == {}
    assert store.check_ledger() == []


def test_names_are_shown_wherever_a_pseudonym_stands() -> None:
    one, other = make_pseudonym(b"1" * 32, "A"), make_pseudonym(b"2" * 32, "B")
    names = {one: "Ada <b>"}
    value = {"by": [f"by {one}, {other}"], one: 1, "n": None}
    assert name_people(value, lambda: names) == {"by": [f"by Ada <b>, {other}"], "Ada <b>": 1, "n": None}
    assert name_people_in_html(f"<i>{one}</i>", lambda: names) == "<i>Ada &lt;b&gt;</i>"
    assert name_people(f"{one}0", lambda: names) == f"{one}0"  # longer, and so none

    def fail() -> dict[str, str]:
        raise AssertionError("asked for names where there is no pseudonym")

    assert name_people(["person", 1, {"a": None}], fail) == ["person", 1, {"a": None}]
