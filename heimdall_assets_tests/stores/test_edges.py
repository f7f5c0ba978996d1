"""Edges: both databases walk a graph as a search in memory does; adding twice adds nothing; a clear forgets all."""

from collections import defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heimdall_assets.errors import Refused
from heimdall_assets.stores.database.edges import EdgeIndex, lend_index, number_thing
from heimdall_assets.stores.database.measurements import MeasurementStore

KINDS = ("session", "part", "iq_files")
THINGS = st.tuples(st.sampled_from(KINDS), st.sampled_from([*"abcdefgh", "ä \" ' ; --", "x" * 300]))
EDGES = st.lists(st.tuples(THINGS, THINGS, st.none() | st.tuples(st.just("measurement"), st.sampled_from("mn"))))
SLOWLY = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def index(store):
    return EdgeIndex(store.database)


def search(start, steps):
    found, pending = set(), [start]
    while pending:
        one = pending.pop()
        if one not in found:
            found.add(one)
            pending += steps[one]
    return found


@SLOWLY
@given(edges=EDGES, start=THINGS)
def test_walks_find_what_a_search_in_memory_finds(index, edges, start):
    index.clear()
    index.add(edges)
    index.add(edges[::2])
    assert index.count_edges() == len(set(edges))
    on, back, known = defaultdict(set), defaultdict(set), {thing for edge in edges for thing in edge[:2]}
    for used, by, way in edges:
        on[used].add(by)
        if way is None and used[0] == "part":
            back[by].add(used)
    found = index.find_descendants([start])
    assert set(found.things.values()) == (search(start, on) if start in known else set())
    expected = {
        (number_thing(used), number_thing(by), 0 if way is None else number_thing(way))
        for used, by, way in edges
        if used in found.things.values()
    }
    assert set(found.edges) == expected
    found = index.find_ancestors([start], ["part"])
    assert set(found.things.values()) == (search(start, back) if start in known else set())
    assert index.find_known([start, ("part", "nobody")]) == ({start} if start in known else set())
    near = {(start, used) for used, by, way in edges if by == start and way is None and used[0] == "session"}
    assert set(index.find_used([start], "session")) == near


def test_many_things_are_asked_about_at_once(index):
    chain = [(("part", str(place)), ("part", str(place + 1)), None) for place in range(40_000)]
    index.add(chain, ("ab" * 32, "results/x"))
    assert index.read_results() == {"ab" * 32: "results/x"}
    everything = [used for used, _, _ in chain]
    assert len(index.find_known(everything)) == len(everything)
    assert len(index.find_descendants(everything[::2]).things) == len(everything) + 1
    assert index.find_names([number_thing(everything[7])]) == {number_thing(everything[7]): "7"}


def test_what_may_only_be_read_is_not_indexed(database_url):
    store = MeasurementStore(database_url, read_only=True)
    store.upgrade()
    index = EdgeIndex(store.database)
    assert index.is_there
    assert not index.is_writable
    with pytest.raises(Refused, match="read-only"):
        index.add([(("session", "a"), ("part", "b"), None)])
    store.close()


def test_an_index_apart_is_empty_and_goes_away():
    with lend_index() as apart:
        assert apart.is_writable
        assert apart.read_results() == {}
