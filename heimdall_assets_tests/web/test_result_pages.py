"""Result pages: what an address means, and what each page holds."""

import re

import pytest

from heimdall_assets.errors import NotFound
from heimdall_assets.evaluation.figures.diagnostics import plot_diagnostics
from heimdall_assets.evaluation.metrics import evaluate_predictions
from heimdall_assets.kinds import EVALUATION_METRICS, TRAINED_CHECKPOINT
from heimdall_assets.lineage.versions import plan_version
from heimdall_assets.manifests import Manifest, encode_canonical_json
from heimdall_assets.media_types import BINARY_MEDIA_TYPE, JSON_MEDIA_TYPE, SVG_MEDIA_TYPE
from heimdall_assets.places import read_places
from heimdall_assets.specs import EvaluationSpec
from heimdall_assets.web.lineage_pages import find_page
from heimdall_assets_tests.evaluation.test_diagnostics import judge

CARD = "# Heimdall v1.0.0\n\n<script>alert(1)</script>\n\n| within | model |\n|---|---|\n| 30 m | 5 % |\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A home with one training, its evaluation and its release: stores, and the digests of the first two."""
    stores = read_places({"HEIMDALL_HOME": str(tmp_path_factory.mktemp("pages"))}).open_stores()
    objects = stores.objects
    settings = {
        "history": [{"epoch": epoch, "train_loss": -epoch, "val_loss": 1.0 - epoch} for epoch in range(3)],
        "facts": {"initial_val_loss": 2.0, "best_epoch": 2, "best_val_loss": -1.0},
    }
    data = objects.put_bytes(encode_canonical_json(settings), JSON_MEDIA_TYPE)
    checkpoint = Manifest(kind=TRAINED_CHECKPOINT, code_version="1", artifacts={"settings.json": data})
    parent = objects.put_bytes(checkpoint.encode(), JSON_MEDIA_TYPE).digest

    sessions, judgement = judge(12, 2)
    metrics = evaluate_predictions(
        sessions, judgement.predictions, judgement.baselines, None, EvaluationSpec(num_bootstrap=100)
    )
    artifacts = {"metrics.json": objects.put_bytes(encode_canonical_json(metrics), JSON_MEDIA_TYPE)}
    for name, svg in plot_diagnostics(sessions, judgement).items():
        artifacts[f"{name}.svg"] = objects.put_bytes(svg, SVG_MEDIA_TYPE)
    artifacts["predictions"] = objects.put_bytes(b"no picture", BINARY_MEDIA_TYPE)
    evaluation = Manifest(
        kind=EVALUATION_METRICS, code_version="1", artifacts=artifacts, parents={TRAINED_CHECKPOINT: parent}
    )
    judged = objects.put_bytes(evaluation.encode(), JSON_MEDIA_TYPE).digest
    files = {"README.md": CARD.encode(), "model.onnx": b"onnx", "provenance.json": b"{}"}
    assert stores.releases.reserve_version(plan_version(None, {}), "results/made") == "v1.0.0"
    stores.releases.publish("v1.0.0", files, {"manifest": parent, "evaluation": judged, "specs": {}})
    return stores, parent, judged


def read(stores, path: str) -> str:
    page = find_page(stores, path)
    assert page.kind == "text/html"
    return page.data.decode()


def test_an_evaluation_is_one_page_with_table_verdict_and_all_figures(made):
    stores, _, judged = made
    page = read(stores, f"/results/{judged}")
    assert page.count("data:image/svg+xml;base64,") == 5  # four of the evaluation, and the losses
    for said in ("<strong>network</strong>", "baseline_1", "The model", "Within which radius", "Where it is better"):
        assert said in page
    # Only its own pictures and the links that it was handed: it opens offline, and runs nothing.
    assert "<script" not in page
    assert {address[:19] for address in re.findall(r'(?:src|href)="([^"]+)', page)} == {"/", "data:image/svg+xml;"}


def test_a_release_leads_to_results_card_and_lineage(made):
    stores, *_ = made
    listed = read(stores, "/")
    for address in ("/v1.0.0", "/v1.0.0/results", "/v1.0.0/card"):
        assert f'<a href="{address}">' in listed
    results, card = read(stores, "/v1.0.0/results"), read(stores, "/v1.0.0/card")
    assert "Results of v1.0.0" in results
    assert 'href="/v1.0.0/card"' in results
    assert 'href="/v1.0.0/results"' in card
    assert all('href="/v1.0.0"' in page for page in (results, card))


def test_a_card_is_drawn_and_what_it_holds_is_text(made):
    card = read(made[0], "/v1.0.0/card")
    assert card.count("<h1>") == 1
    assert "<h1>Heimdall v1.0.0</h1>" in card
    assert "<td>30 m</td>" in card
    assert "<script>" not in card


def test_each_figure_has_an_address_of_its_own(made):
    stores, parent, judged = made
    for address in (f"/results/{judged}/error_map.svg", f"/trainings/{parent}/losses.svg"):
        page = find_page(stores, address)
        assert page.kind == SVG_MEDIA_TYPE
        assert page.data.startswith(b"<?xml")
    assert b"kept: epoch 3" in find_page(stores, f"/trainings/{parent}/losses.svg").data


def test_a_range_test_is_drawn_where_there_was_one(made):
    stores, parent, _ = made
    with pytest.raises(NotFound, match="figure rates: found none"):
        find_page(stores, f"/trainings/{parent}/rates.svg")
    searched = {"learning_rates": [1e-5, 1e-4, 1e-3], "losses": [2.0, 1.9, 1.0], "chosen": 3e-4}
    settings = {
        "history": [{"epoch": 0, "train_loss": 0.0, "val_loss": 1.0}],
        "facts": {"initial_val_loss": 2.0, "best_epoch": 0, "best_val_loss": 1.0, "learning_rate_search": searched},
    }
    data = stores.objects.put_bytes(encode_canonical_json(settings), JSON_MEDIA_TYPE)
    checkpoint = Manifest(kind=TRAINED_CHECKPOINT, code_version="1", artifacts={"settings.json": data})
    digest = stores.objects.put_bytes(checkpoint.encode(), JSON_MEDIA_TYPE).digest
    drawn = find_page(stores, f"/trainings/{digest}/rates.svg")
    assert drawn.kind == SVG_MEDIA_TYPE
    assert b"chosen: 0.0003" in drawn.data
    assert b"range test of 3 steps" in drawn.data


def test_what_is_no_result_is_not_found(made):
    stores, parent, judged = made
    absent = "0" * 64
    for path in (
        f"/results/{absent}", f"/results/{parent}", f"/results/{judged}/", f"/results/{judged}/predictions.svg",
        f"/results/{judged}/nothing.svg", f"/results/{judged}/../x.svg", f"/trainings/{judged}/losses.svg",
        f"/trainings/{parent}", f"/results/{judged[:12]}", f"/results/{judged.upper()}",
        "/v1.0.0/files", "/v9.9.9/card",
        f"/results/{stores.objects.put_bytes(b'no manifest', JSON_MEDIA_TYPE).digest}",
    ):  # fmt: skip
        with pytest.raises(NotFound, match="found"):
            find_page(stores, path)
