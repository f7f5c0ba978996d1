"""Reports: the tree tells every manifest, the page is one file, opens without a network, and escapes what it shows."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from heimdall_assets.lineage.pages.offline import MAX_TABLE_ROWS, render_html
from heimdall_assets.lineage.tree import render_tree
from heimdall_assets_tests.lineage.world import REASON, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"), 5)


@pytest.fixture(scope="module")
def provenance(world):
    return world.freeze(world.make_chain())


@pytest.fixture(scope="module")
def data(world, provenance):
    return world.read_data(provenance)


@pytest.fixture(scope="module")
def decisions(world, provenance):
    return world.read_decisions(provenance)


def test_the_tree_tells_every_manifest_once_in_full(world, provenance, decisions):
    text = world.name(render_tree(provenance, decisions))
    for node in provenance["nodes"]:
        assert text.count(f"{node['kind']} {node['digest'][:12]}  (") == 1
    assert "measurement_database" in text
    assert "5 sessions (3 test, 1 train, 1 val)" in text
    assert "approved by Ada, " in text
    assert f"5 sessions: {REASON}" in text
    assert "checks: 1 evaluated, none failed" in text
    assert "TrainingSpec.seed 42" in text
    assert "cpu_capability AVX2" in text
    assert f"git_sha {'a' * 40}" in text
    assert "(above)" in text
    assert text.splitlines()[0].startswith("v1.0.0")


class Checker(HTMLParser):
    """Collects tags that are left open and addresses that a browser would load."""

    def __init__(self):
        super().__init__()
        self.open, self.loaded, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.loaded += [value for name, value in attrs if name in {"src", "href", "xlink:href"}]
        if tag not in {"meta", "link", "img", "br", "circle", "path"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_whole_and_loads_nothing(provenance, data, decisions):
    page = render_html(provenance, data, decisions, "ab" * 32)
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert checker.loaded == []
    assert not re.search(r"https?://|@import|url\(", page)
    assert "ab" * 32 in page
    for word in ("night 4", "Station-A", "TrainingSpec", "splits_do_not_leak", "AVX2", "Sessions (5 of 5)"):
        assert word in page


def test_what_comes_from_outside_is_escaped(provenance, data, decisions):
    page = render_html(provenance, data, decisions)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<b>centre</b>" not in page


def test_the_map_is_svg_with_every_place(provenance, data, decisions):
    page = render_html(provenance, data, decisions)
    svg = ET.fromstring(re.search(r"<svg.*?</svg>", page, re.S).group())
    marks = [(float(mark.get("cx")), float(mark.get("cy"))) for mark in svg.iter("circle") if mark.get("fill-opacity")]
    assert len(marks) == 5
    assert all(0 <= x <= 760 and 0 <= y <= 460 for x, y in marks)
    # Sources move north-east with their number: right and up on the page.
    assert marks == sorted(marks)
    assert [y for _, y in marks] == sorted((y for _, y in marks), reverse=True)
    assert len([mark for mark in svg.iter("path") if mark.get("fill") == "#111"]) == 3


def test_long_tables_say_that_they_are_cut(provenance, data, decisions):
    long = replace(data, sessions=pd.concat([data.sessions] * (MAX_TABLE_ROWS // 5 + 1)))
    page = render_html(provenance, long, decisions)
    assert f"Sessions ({MAX_TABLE_ROWS} of {MAX_TABLE_ROWS + 5})" in page
    assert page.count("heimdall lineage v1.0.0 --table sessions") == 1
    assert "--table measurements" not in page


def test_a_model_without_positions_draws_an_empty_map(provenance, data, decisions):
    nowhere = {"source_latitude": np.nan, "source_longitude": np.nan}
    bare = replace(data, measurements=data.measurements.head(0), sources=data.sources.assign(**nowhere))
    assert "0 of 0 transmitting places" in render_html(provenance, bare, decisions)


def test_one_place_alone_is_drawn(provenance, data, decisions):
    one = replace(data, sessions=data.sessions.head(1), measurements=data.measurements.head(0))
    assert "1 of 1 transmitting places" in render_html(provenance, one, decisions)
