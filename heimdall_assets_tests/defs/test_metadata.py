"""What the page shows of a result: short enough to be drawn without a click, numbers only where they make a curve."""

import pandas as pd
import pytest

from heimdall_assets.defs.figures import INLINE_LENGTH, is_told, show_comparison, show_epochs, show_figures
from heimdall_assets.defs.results import CURVES, link_parents, materialize
from heimdall_assets.defs.tables import preview, render_facts, render_table, shorten
from heimdall_assets.defs.tracking.resource import ExperimentTracking
from heimdall_assets.kinds import EVALUATION_METRICS, TRAINED_CHECKPOINT
from heimdall_assets.manifests import Artifact, Manifest
from heimdall_assets.media_types import JSON_MEDIA_TYPE, SVG_MEDIA_TYPE
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.pipeline.results import Result

ID = "83e0bd05-ea22-5877-b65f-96c075855bb5"


def artifact(media_type: str) -> Artifact:
    return Artifact(digest="a" * 64, size=2_000_000, media_type=media_type)


def test_a_preview_holds_the_columns_that_were_asked_for_short_and_in_order():
    table = pd.DataFrame(
        {
            "measurement_id": [ID, ID],
            "truth": ["{...}"] * 2,
            "snr_db": [12.3456789, None],
            "reason": ["a|b\nc", "x" * 90],
        }
    )
    lines = preview(table, ["measurement_id", "reason", "snr_db"]).value.splitlines()
    assert lines[0] == "| measurement_id | reason | snr_db |"
    assert lines[2] == "| 83e0bd05… | a/b c | 12.346 |"
    assert lines[3] == f"| 83e0bd05… | {'x' * 32}… |  |"
    assert preview(table.head(0), ["reason"]).value == "none"


def test_a_preview_is_cut_where_the_page_would_hide_it_and_says_so():
    table = pd.DataFrame({"reason": ["x" * 32] * 500})
    shown = preview(table, ["reason"], 100).value
    assert INLINE_LENGTH - 60 < len(shown) < INLINE_LENGTH
    assert shown.count("x" * 32) < 30
    assert shown.endswith(f"{shown.count('x' * 32)} of 500 rows")
    assert len(render_table(["a"], [["y" * 2000]], 1).value) < INLINE_LENGTH  # not even one row fits


def test_only_what_says_something_as_a_curve_is_a_number():
    summary = {
        "best_val_loss": -1.5,
        "num_train_sessions": 97,
        "num_weights": 3503031,
        "best_epoch": None,
        "mix": {"a": 1},
    }
    manifest = Manifest(
        kind=TRAINED_CHECKPOINT, code_version="1", summary=summary, artifacts={"w": artifact(JSON_MEDIA_TYPE)}
    )
    made = materialize(Result(manifest, reused=True), {"losses": "a picture", "resumed": False})
    assert list(made.metadata) == [
        "losses", "resumed", "best_val_loss", "num_train_sessions", "facts", "made_from", "reused", "manifest",
    ]  # fmt: skip
    facts = made.metadata["facts"].value
    for said in ("| weights | 3,503,031 |", "| best epoch | none |", "| size in MB | 2 |"):
        assert said in facts
    assert "mix" not in facts
    assert set(CURVES) <= set(STAGES)


def test_a_result_names_its_parents_within_the_page_itself():
    parents = {"val_split": "b" * 64, "train_split": "a" * 64}
    manifest = Manifest(kind=TRAINED_CHECKPOINT, code_version="1", parents=parents)
    assert link_parents(manifest).value == (
        f"[train_split](/assets/train_split) `{'a' * 12}`  \n[val_split](/assets/val_split) `{'b' * 12}`"
    )
    assert link_parents(manifest.model_copy(update={"parents": {}})).value == "nothing"
    for kind, stage in STAGES.items():
        told = link_parents(Manifest(kind=kind, code_version="1", parents=dict.fromkeys(stage.parents, "a" * 64)))
        assert len(told.value) < INLINE_LENGTH


def test_facts_read_like_words():
    assert render_facts({"num_sites": 3, "trained": False}).value.splitlines()[2:] == [
        "| sites | 3 |",
        "| trained | no |",
    ]
    assert (shorten(1234567.5), shorten(1e-9), shorten(float("nan"))) == ("1.2346e+06", "1e-09", "nan")


def test_figures_are_addresses_in_the_order_in_which_they_are_read():
    names = ("error_cdf", "error_map", "error_vectors", "extra", "reliability")
    artifacts = {
        "metrics.json": artifact(JSON_MEDIA_TYPE),
        **{f"{name}.svg": artifact(SVG_MEDIA_TYPE) for name in names},
    }
    shown = show_figures("http://127.0.0.1:3001/results/ab", Manifest(
        kind=EVALUATION_METRICS, code_version="1", artifacts=artifacts))  # fmt: skip
    assert list(shown) == ["error_vectors", "error_map", "error_cdf", "reliability", "extra"]
    assert shown["error_map"].value.endswith("](http://127.0.0.1:3001/results/ab/error_map.svg)")


def test_the_longest_comparison_is_drawn_without_a_click():
    row = {"median_m": 123456.0, "p90_m": 123456.0, "coverage_90": 0.9, "skill": 0.1, "skill_low": -0.1}
    metrics = {
        "method": "single_receiver", "baselines": {f"a_very_long_baseline_{i}": row for i in range(8)}, **row,
        "worse_than": [f"a_very_long_baseline_{i}" for i in range(7)], "best_baseline": "a_very_long_baseline_0",
        "bound": {"num_sessions": 5, "median_m": 10.0, "p90_m": 20.0},
    }  # fmt: skip
    shown = show_comparison(metrics)
    assert set(shown) == {"comparison", "verdict"}
    assert all(len(value.value) < INLINE_LENGTH for value in shown.values())
    assert "| physical bound | 10 m | 20 m | - |" in shown["comparison"].value


def test_an_epoch_is_told_as_text_with_those_of_its_own_run_alone():
    """A number would be drawn over the clock, in one curve with every earlier run's."""
    seen = [{"train_loss": 1.0, "val_loss": value} for value in (0.5, 0.25, 0.75)]
    shown = show_epochs(seen, 6, 40)  # resumed after four epochs of another process
    assert shown["epochs"] == "7 of at most 40"
    assert shown["best_so_far"] == "epoch 5, validation loss 0.2500"
    assert "| 4 | 1.0000 | 0.5000 |" in shown["losses_so_far"].value
    assert not any(isinstance(value, int | float) for value in shown.values())
    many = show_epochs([{"train_loss": -1234.5678, "val_loss": -1234.5678}] * 400, 399, 400)
    assert len(many["losses_so_far"].value) < INLINE_LENGTH


OPENED = ", then http://127.0.0.1:5000/#/runs/3f2a"
_HOME = "${HEIMDALL_HOME:-.heimdall}"
EMBEDDED = f"mlflow ui --backend-store-uri sqlite:///{_HOME}/mlflow.db --artifacts-destination {_HOME}/mlflow-artifacts"
EMBEDDED += OPENED
ELSEWHERE = "mlflow ui --backend-store-uri $MLFLOW_TRACKING_URI" + OPENED


def test_a_long_training_leaves_room_for_others_among_the_events_that_the_page_draws():
    told = [epoch for epoch in range(40) if is_told(epoch)]
    assert told == [*range(10), 19, 29, 39]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("https://ada:secret@mlflow.example/base/", "https://mlflow.example/base/#/runs/3f2a"),
        ("sqlite:////home/ada/.heimdall/mlflow.db", EMBEDDED),
        ("postgresql://ada:secret@db/mlflow", ELSEWHERE),
    ],
)
def test_a_checkpoint_leads_to_its_run_and_tells_no_password_and_no_home(uri, expected):
    shown = ExperimentTracking(tracking_uri=uri).show_run("3f2a")
    assert str(getattr(shown["mlflow"], "value", shown["mlflow"])) == expected
    assert shown["mlflow_run_id"] == "3f2a"
    assert ExperimentTracking(tracking_uri=uri).show_run(None) == {}
