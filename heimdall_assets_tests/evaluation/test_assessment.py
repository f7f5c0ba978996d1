"""Assessment: histories with known curves; each flag fires where its trouble is planted, and nowhere else."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from heimdall_assets.errors import InvalidInput
from heimdall_assets.evaluation import red_flags
from heimdall_assets.evaluation.assessment import assess_training
from heimdall_assets.specs import AssessmentSpec, list_specs
from heimdall_assets.training_tables import (
    EPOCHS,
    FEATURES,
    GRADIENTS,
    POSITIONS,
    PROBABILITY,
    SIGNALS,
    TABLES,
    TRAIN,
    UNCERTAINTY,
    VAL,
    Row,
    decode_rows,
    encode_head,
    encode_row,
)

Curve = Callable[[int], float]
LENGTH = 30


def falling(start: float = 3.0, end: float = 1.0, pace: float = 3.0) -> Curve:
    """An exponential from ``start`` towards ``end``."""
    return lambda epoch: end + (start - end) * math.exp(-epoch / pace)


HEALTHY: dict[str, Curve] = {
    "train_loss": falling(),
    "val_loss": falling(3.1, 1.1),
    "val_error_m": falling(400.0, 40.0),
    "learning_rate": lambda epoch: 1e-3,
    "sigma_position": falling(500.0, 45.0),
    "squared_z": lambda epoch: 1.39,
    "total_grad_norm": lambda epoch: 1.0,
    "separation": falling(0.0, 0.8),
    "span_f1": falling(0.1, 0.93),
    "channel_std": lambda epoch: 1.0,
}


def make_tables(length: int = LENGTH, **changes: Curve) -> dict[str, list[Row]]:
    """Tables of a training with these curves, read back from the bytes of their files."""
    curves = {**HEALTHY, **changes}

    def pick(epoch: int, *names: str) -> Row:
        return {name: float(curves[name](epoch)) for name in names}

    rows: list[tuple[str, Row]] = []
    for epoch in range(length):
        own: Row = {"epoch": epoch, "part": POSITIONS}
        named = ("train_loss", "val_loss", "val_error_m", "learning_rate")
        rows.append((EPOCHS, {**own, **pick(epoch, *named)}))
        rows.append((UNCERTAINTY, {**own, **pick(epoch, "sigma_position", "squared_z")}))
        for layer in ("first", "last"):
            norm = pick(epoch, "total_grad_norm")
            rows.append((GRADIENTS, {**own, "layer": layer, **norm, "max_grad_norm": norm["total_grad_norm"]}))
        for channel in ("level_db", "snr_db"):
            std = pick(epoch, "channel_std")["channel_std"] if channel == "snr_db" else 1.0
            spread: Row = {"mean": 0.0, "std": std, "min": -1.0, "max": 1.0, "median": 0.0, "missing": 0.0}
            rows.append((FEATURES, {**own, "phase": TRAIN, "channel": channel, **spread}))
        heard: Row = {"epoch": epoch, "part": SIGNALS}
        rows.append((EPOCHS, {**heard, "train_loss": 1.0, "val_loss": 1.0, **pick(epoch, "span_f1")}))
        rows.append((PROBABILITY, {**heard, "phase": VAL, **pick(epoch, "separation")}))
    return {
        table: decode_rows(
            table, encode_head(table) + b"".join(encode_row(table, row) for of, row in rows if of == table)
        )
        for table in TABLES
    }


def told(max_epochs: int = 100) -> dict[str, object]:
    return {"status": "finished", "settings": {"TrainingSpec": {"max_epochs": max_epochs}}}


def name_flags(tables: dict[str, list[Row]], max_epochs: int = 100) -> list[str]:
    return [flag.name for flag in assess_training(tables, told(max_epochs), AssessmentSpec()).flags]


def saw(epoch: int) -> float:
    """Up by 2 and down by 2, again and again."""
    return 2.0 + (epoch % 2) * 2.0


PLANTED: dict[str, dict[str, Curve]] = {
    "exploding gradients": {"total_grad_norm": lambda epoch: 40.0 if epoch == 7 else 1.0},
    "vanishing gradients": {"total_grad_norm": lambda epoch: 1e-3},
    "overfitting": {"val_loss": lambda epoch: 1.1 + 0.002 * (epoch - 12) ** 2},
    "uncertainty collapse": {"squared_z": lambda epoch: 100.0},
    "stated errors far too large": {"squared_z": lambda epoch: 1e-3},
    "spans not told apart": {"separation": lambda epoch: 0.02},
    "dead input channels": {"channel_std": lambda epoch: 0.0},
    "learning rate too high": {"train_loss": saw, "val_loss": lambda epoch: 3.0},
    "learning rate too low": {"train_loss": lambda epoch: 3.0 - 1e-4 * epoch, "val_loss": lambda epoch: 3.1},
    "validation easier than training": {"val_loss": falling(2.0, 0.5)},
}


@pytest.mark.parametrize("name", PLANTED)
def test_each_flag_fires_alone_where_its_trouble_is_planted(name: str):
    assert name_flags(make_tables(**PLANTED[name])) == [name]


def test_a_healthy_training_raises_none_and_converged():
    found = assess_training(make_tables(), told(), AssessmentSpec())
    assert found.flags == []
    assert found.convergence == dict.fromkeys(found.convergence, True)
    assert found.figures["epochs"] == LENGTH
    assert found.figures["best_epoch"] == LENGTH - 1
    assert found.not_measured == []


def test_a_training_that_was_cut_off_while_it_fell_is_named():
    tables = make_tables(12, train_loss=lambda epoch: 3.0 - 0.1 * epoch, val_loss=lambda epoch: 3.1 - 0.1 * epoch)
    assert name_flags(tables, max_epochs=12) == ["stopped while still falling"]
    assert name_flags(tables, max_epochs=13) == []  # somebody stopped it, or it stopped early
    assert name_flags(make_tables(12, val_loss=falling(3.1, 1.1, pace=0.5)), max_epochs=12) == []  # it had settled


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_named_and_no_convergence(value: float):
    tables = make_tables(val_loss=lambda epoch: value if epoch == 20 else falling(3.1, 1.1)(epoch))
    found = assess_training(tables, told(), AssessmentSpec())
    assert found.flags[0].name == "not finite"
    assert found.convergence["all_finite"] is False


def test_a_sigma_that_falls_while_the_error_stays_has_collapsed():
    shrunk = {"sigma_position": falling(1000.0, 1.0), "squared_z": lambda epoch: 20.0}
    assert name_flags(make_tables(**shrunk, val_error_m=lambda epoch: 400.0)) == ["uncertainty collapse"]
    assert name_flags(make_tables(**shrunk, val_error_m=falling(400.0, 4.0))) == []  # the error fell as much


def test_settled_is_a_change_below_the_threshold_over_all_the_epochs_asked_for():
    def judge(tables: dict[str, list[Row]]) -> bool | None:
        return assess_training(tables, told(), AssessmentSpec()).convergence["val_loss_settled"]

    step = 0.0101
    assert judge(make_tables(11, val_loss=lambda epoch: 2.0 - 0.0099 * epoch)) is True
    assert judge(make_tables(11, val_loss=lambda epoch: 2.0 - step * epoch)) is False
    stepped = {"val_loss": lambda epoch: 2.0 - step * (epoch >= 1)}
    assert judge(make_tables(12, **stepped)) is True  # ten changes, and the step before them
    assert judge(make_tables(11, **stepped)) is False
    assert judge(make_tables(10)) is None


@pytest.mark.parametrize(
    ("error_m", "span_f1", "tier"),
    [
        (29.0, 0.96, "excellent"),
        (29.0, 0.91, "good"),
        (49.0, 0.96, "good"),
        (99.0, 0.85, "acceptable"),
        (101.0, 1.0, None),
    ],
)
def test_a_tier_asks_for_all_of_its_bounds(error_m: float, span_f1: float, tier: str | None):
    tables = make_tables(val_error_m=lambda epoch: error_m, span_f1=lambda epoch: span_f1)
    found = assess_training(tables, told(), AssessmentSpec())
    assert found.tier == tier
    if tier is None:
        assert found.tiers["acceptable"] == ["val_error_m 101, expected at most 100"]


def test_tiers_are_settings():
    tables = make_tables(val_loss=lambda epoch: 0.5)
    spec = AssessmentSpec(tiers={"mine": {"max_val_loss": 0.6, "min_separation": 0.5}})
    assert assess_training(tables, told(), spec).tier == "mine"
    with pytest.raises(ValueError, match="tiers: found max_median, expected one of max_val_loss"):
        AssessmentSpec(tiers={"mine": {"max_median": 1.0}})
    with pytest.raises(ValueError, match="gradient_norm: found"):
        AssessmentSpec(gradient_norm=[1.0, 0.1])


def test_what_was_not_measured_is_said_and_raises_nothing():
    found = assess_training({table: [] for table in TABLES}, {}, AssessmentSpec())
    assert found.flags == []
    assert found.tier is None
    assert set(found.not_measured) >= {"loss_falls", "val_loss_settled", "all_finite", "gradients_healthy", "span_f1"}


def test_advice_names_settings_that_are_there():
    source = Path(red_flags.__file__).read_text()
    named = set(re.findall(r"\b(\w+Spec)\.(\w+)", source))
    assert len(named) > 10
    assert {f"{spec}.{field}" for spec, field in named if field not in list_specs()[spec].model_fields} == set()


def test_a_line_that_is_still_being_written_is_not_read():
    row: Row = {"epoch": 0, "part": POSITIONS, "train_loss": 0.1 + 0.2}
    whole = encode_head(EPOCHS) + encode_row(EPOCHS, row)
    assert decode_rows(EPOCHS, whole + encode_row(EPOCHS, row)[:-1]) == decode_rows(EPOCHS, whole)
    assert decode_rows(EPOCHS, b"") == []
    with pytest.raises(InvalidInput, match=r"epoch_metrics\.csv: found a line"):
        decode_rows(EPOCHS, b"a,b\n1,2\n")
    with pytest.raises(InvalidInput, match="found column 'loss'"):
        encode_row(EPOCHS, {"loss": 1.0})
