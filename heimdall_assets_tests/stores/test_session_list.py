"""The list of sessions, on both databases: a walk over its pages is what plain Python finds, forth and back."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest

from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import NotFound, Refused
from heimdall_assets.stores.database.marks import read_marks
from heimdall_assets.stores.database.session_list import (
    Place,
    Wanted,
    count_statuses,
    find_neighbour,
    list_campaigns,
    read_page,
)
from heimdall_assets_tests.stores.batches import make_batch

DAY = datetime(2026, 3, 1, tzinfo=UTC)
NUM_SESSIONS = 40


@pytest.fixture
def filled(store):
    """A store of sessions that start together, within one second and days apart; some of them are decided."""
    batch = make_batch(NUM_SESSIONS, num_stations=2)
    generator = np.random.default_rng(3)
    starts = [
        DAY + timedelta(hours=int(generator.integers(48)), microseconds=int(generator.choice([0, 1, 500_000])))
        for _ in batch.sessions
    ]
    sessions = [
        session.model_copy(update={"start": start, "end": None, "campaign": f"c{number % 3}"})
        for number, (session, start) in enumerate(zip(batch.sessions, starts, strict=True))
    ]
    heard = [
        row.model_copy(update={"frequency_hz": 145e6 if index % 3 else 7e6})
        for index, row in enumerate(batch.measurements)
    ]
    store.add(replace(batch, sessions=sessions, measurements=heard))
    ids = [session.id for session in sessions]
    store.decide(ids[:9], ApprovalStatus.APPROVED, "ada", "known")
    store.decide(ids[9:13], ApprovalStatus.REJECTED, "ada", "unknown")
    return store, {session.id: session for session in sessions}, heard


WANTED = [
    Wanted(),
    Wanted(oldest_first=True),
    Wanted(status=ApprovalStatus.PENDING, campaign="c1"),
    Wanted(status=ApprovalStatus.APPROVED, oldest_first=True),
    Wanted(since=DAY + timedelta(hours=10), until=DAY + timedelta(hours=30, microseconds=1)),
    Wanted(low_hz=1e6, high_hz=8e6),
    Wanted(low_hz=8e6, oldest_first=True),
    Wanted(campaign="nothing"),
]


def find_plainly(wanted, sessions, heard, store):
    status = {row["id"]: row["approval_status"] for row in store.list_sessions()}
    found = []
    for name, session in sessions.items():
        rows = [row for row in heard if row.session_id == name]
        if wanted.station is not None:
            rows = [row for row in rows if row.station_id == wanted.station]
        rows = [row for row in rows if (wanted.low_hz or 0) <= row.frequency_hz <= (wanted.high_hz or 1e12)]
        narrowed = wanted.station or wanted.low_hz or wanted.high_hz
        if (
            (wanted.status is None or status[name] == wanted.status)
            and (wanted.campaign is None or session.campaign == wanted.campaign)
            and (wanted.since is None or session.start >= wanted.since)
            and (wanted.until is None or session.start < wanted.until)
            and (rows or not narrowed)
        ):
            found.append(name)
    return sorted(found, key=lambda name: (sessions[name].start, name), reverse=not wanted.oldest_first)


@pytest.mark.parametrize("length", [1, 7, 100])
def test_a_walk_finds_each_session_once_in_order_forth_and_back(filled, length):
    store, sessions, heard = filled
    stations = sorted({row.station_id for row in heard})
    for wanted in (*WANTED, Wanted(station=stations[0], low_hz=8e6)):
        expected = find_plainly(wanted, sessions, heard, store)
        with store.database.reading() as connection:
            shape = store.database.shape
            pages, at = [], None
            while True:
                pages.append(read_page(connection, shape, wanted, at, length))
                if pages[-1].next is None:
                    break
                at = ("next", pages[-1].next)
            walked = [[row["id"] for row in page.rows] for page in pages]
            assert [name for names in walked for name in names] == expected
            assert pages[0].previous is None
            back = pages[-1]
            for names in reversed(walked[:-1]):
                back = read_page(connection, shape, wanted, ("previous", back.previous), length)
                assert [row["id"] for row in back.rows] == names
            assert back.previous is None
            for before, after in pairwise([*expected, None]):
                assert find_neighbour(connection, shape, wanted, before) == after


def test_counts_are_of_what_is_wanted_whatever_its_status(filled):
    store, sessions, heard = filled
    with store.database.reading() as connection:
        shape = store.database.shape
        assert list_campaigns(connection, shape) == ["c0", "c1", "c2"]
        for wanted in WANTED:
            counts = count_statuses(connection, shape, wanted)
            for status in ApprovalStatus:
                assert counts[status] == len(find_plainly(replace(wanted, status=status), sessions, heard, store))


def test_a_page_goes_on_where_its_neighbour_was_decided_away(filled):
    store, sessions, heard = filled
    wanted = Wanted(status=ApprovalStatus.PENDING)
    expected = find_plainly(wanted, sessions, heard, store)
    with store.database.reading() as connection:
        first = read_page(connection, store.database.shape, wanted, None, 5)
    store.decide(expected[:5], ApprovalStatus.APPROVED, "ada", "known")
    with store.database.reading() as connection:
        shape = store.database.shape
        second = read_page(connection, shape, wanted, ("next", first.next), 5)
        assert [row["id"] for row in second.rows] == expected[5:10]
        assert find_neighbour(connection, shape, wanted, expected[4]) == expected[5]
        assert find_neighbour(connection, shape, wanted, "nobody") is None
        # A place of no session is a place all the same.
        nowhere = read_page(connection, shape, wanted, ("next", Place("1999-01-01 00:00:00.000000", "")), 5)
        assert (nowhere.rows, nowhere.previous, nowhere.next) == ([], None, None)
        if store.database.postgresql_url is not None:
            with pytest.raises(NotFound, match="place 'soon': expected a time"):
                read_page(connection, shape, wanted, ("next", Place("soon", "x")), 5)


def test_a_mark_holds_until_anything_of_its_session_changes(filled):
    store, sessions, _ = filled
    one, other, *_ = [name for name, session in sessions.items() if session.campaign == "c2"]

    def mark():
        with store.database.reading() as connection:
            return read_marks(connection, store.database.shape, [one, other, "nobody"])

    before = mark()
    assert set(before) == {one, other}
    assert mark() == before
    store.decide([other], ApprovalStatus.REJECTED, "ada", "no", seen={other: before[other]})
    after = mark()
    assert after[one] == before[one]
    assert after[other] != before[other]
    events = store.list_approval_events()
    with pytest.raises(Refused, match=r"changed after it was shown \(1 of 2 sessions are so\): it is rejected"):
        store.decide([one, other], ApprovalStatus.APPROVED, "bob", "yes", seen=before)
    with pytest.raises(Refused, match="session nobody: is gone"):
        store.decide(["nobody"], ApprovalStatus.APPROVED, "bob", "yes", seen={"nobody": "0" * 32})
    assert store.list_approval_events() == events
    # Decided and decided back is not what was seen either: somebody had a reason in between.
    store.decide([one], ApprovalStatus.REJECTED, "ada", "no")
    store.decide([one], ApprovalStatus.APPROVED, "ada", "yes")
    assert mark()[one] not in (before[one], after[one])
