"""Diagnostics: rows that say what was trained, closed forms of their sums, and not one bit of a fit changed."""

import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heimdall_assets.learning.fitting.diagnostics import Diagnostics
from heimdall_assets.learning.fitting.hooks import Hooks
from heimdall_assets.learning.fitting.measures import STEPS_PER_EPOCH, Gradients, Mean, Spread
from heimdall_assets.learning.fitting.training import fit_model
from heimdall_assets.session_set import SessionSet
from heimdall_assets.specs import AugmentationSpec, ModelSpec, TrainingSpec
from heimdall_assets.stores.scratch import CheckpointFolder
from heimdall_assets.training_tables import (
    EPOCHS,
    FEATURES,
    GRADIENTS,
    LOSSES,
    POSITIONS,
    PROBABILITY,
    SIGNALS,
    TABLES,
    TRAIN,
    UNCERTAINTY,
    VAL,
    Moment,
    Row,
    encode_row,
    take,
    take_numbers,
)
from heimdall_assets_tests.learning.learning_cases import QUICK, fit_quick, get_fitted
from heimdall_assets_tests.learning.test_signal_tasks import give_tracks, make_timed

EMPTY = {
    LOSSES: {"loss_countdown"},
    UNCERTAINTY: {"sigma_type", "sigma_ptr", "sigma_span", "sigma_countdown", "weight_countdown"},
    EPOCHS: {"epoch_time", "samples_per_s"},
}
"""Columns that hold nothing: those that say so, and those of whoever has a clock."""


class Kept:
    """Keeps the rows and moments that it is told."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Row]] = defaultdict(list)
        self.moments: list[Moment] = []

    def record(self, table: str, row: Row) -> None:
        encode_row(table, row)  # no column that the table does not have
        self.rows[table].append({**dict.fromkeys(TABLES[table].columns), **row})

    def hooks(self) -> Hooks:
        return Hooks(record=self.record, on_step=self.moments.append)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Kept]:
    kept = Kept()
    return fit_quick(tmp_path_factory.mktemp("fit"), hooks=kept.hooks()), kept


def fit_signals(folder: Path, sessions: SessionSet, hooks: Hooks = Hooks()) -> Any:  # noqa: B008 - frozen
    model = ModelSpec(use_spectrograms=False, width=8, num_layers=1, num_heads=1, multi_target=True)
    train, val = sessions.take(np.arange(8)), sessions.take(np.arange(8, 12))
    training = TrainingSpec(max_epochs=2, num_threads=1, batch_size=4)
    folder_of = CheckpointFolder(folder)
    return fit_model(model, training, AugmentationSpec(), train, val, folder_of, hooks=hooks)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Kept]:
    """The same network with signal heads, fitted unwatched and watched."""
    sessions, kept = give_tracks(make_timed(12)), Kept()
    plain = fit_signals(tmp_path_factory.mktemp("plain"), sessions)
    return plain, fit_signals(tmp_path_factory.mktemp("watched"), sessions, kept.hooks()), kept


def test_a_fit_gives_the_same_bytes_watched_and_unwatched(single: tuple[Any, Kept], network: tuple[Any, Any, Kept]):
    assert single[0].encode() == get_fitted().encode()
    assert network[1].encode() == network[0].encode()


def test_every_column_is_filled_but_those_that_say_why_not(single: tuple[Any, Kept], network: tuple[Any, Any, Kept]):
    for table, about in TABLES.items():
        rows = [*single[1].rows[table], *network[2].rows[table]]
        filled = {name for row in rows for name, value in row.items() if value is not None}
        assert set(about.columns) - filled == EMPTY.get(table, set()), table


def test_epochs_are_those_of_the_history(single: tuple[Any, Kept]):
    fitted, kept = single
    for name in ("train_loss", "val_loss", "learning_rate"):
        assert take_numbers(kept.rows[EPOCHS], name) == [record[name] for record in fitted.history]
    assert take_numbers(kept.rows[EPOCHS], "steps") == [2, 4, 6]
    for phase in (TRAIN, VAL):
        totals = take_numbers(take(kept.rows[LOSSES], phase=phase), "total_loss")
        assert totals == [record[f"{phase}_loss"] for record in fitted.history]


def test_stated_errors_and_squared_z_belong_together(single: tuple[Any, Kept]):
    """Of one example with equal axes, z^2 = 2 (error / sigma)^2 where sigma is the root mean square of both axes."""
    for stated, epoch in zip(single[1].rows[UNCERTAINTY], single[1].rows[EPOCHS], strict=True):
        told = epoch["val_error_m"], stated["sigma_position"], stated["squared_z"]
        error, sigma, z = (float(value) for value in told)
        assert 0.2 < z / (2.0 * 0.5 * (error / sigma) ** 2) < 5.0  # medians of six sessions


def test_inputs_are_described_each_channel_in_both_phases(single: tuple[Any, Kept], network: tuple[Any, Any, Kept]):
    channels = {(row["phase"], row["channel"]) for row in single[1].rows[FEATURES]}
    assert channels == {(phase, f"spectrogram_{number}") for phase in (TRAIN, VAL) for number in range(3)}
    assert {row["epoch"] for row in single[1].rows[FEATURES]} == {0}
    named = {str(row["channel"]) for row in network[2].rows[FEATURES]}
    assert named >= {"east_km", "level_db", "snr_db", "arrival_km"}
    for row in single[1].rows[FEATURES]:
        assert row["min"] < row["median"] < row["max"]
        assert row["missing"] == 0


def test_signal_heads_tell_of_their_own_epochs(network: tuple[Any, Any, Kept]):
    _, fitted, kept = network
    epochs = take(kept.rows[EPOCHS], SIGNALS)
    assert [row["epoch"] for row in epochs] == list(range(fitted.settings["facts"]["signal_num_epochs"]))
    best = min(take_numbers(epochs, "val_loss"))
    assert best == pytest.approx(fitted.settings["facts"]["signal_val_loss"], rel=1e-5)
    for row in take(kept.rows[LOSSES], SIGNALS):
        parts = [float(row[name] or 0.0) for name in ("loss_type", "loss_ptr", "loss_span", "loss_snr")]
        assert sum(parts) == pytest.approx(row["total_loss"])
    for row in kept.rows[PROBABILITY]:
        assert row["separation"] == pytest.approx(row["in_span_mean"] - row["out_span_mean"])
    assert len(kept.rows[PROBABILITY]) == 2 * len(epochs)
    assert {row["part"] for row in kept.rows[GRADIENTS]} == {POSITIONS, SIGNALS}


def test_moments_count_batches_and_examples(single: tuple[Any, Kept]):
    moments = single[1].moments
    assert moments[:4] == [Moment(0, 0, 2, 0), Moment(0, 1, 2, 16), Moment(0, 2, 2, 32), Moment(1, 0, 2, 0)]
    assert len(moments) == QUICK.max_epochs * 3


def test_nothing_is_left_on_the_network(tmp_path: Path):
    kept = Kept()

    def fail(epoch: int, metrics: dict[str, float]) -> None:
        raise RuntimeError("amidst")

    watching = Diagnostics(kept.record)
    with pytest.raises(RuntimeError, match="amidst"):
        fit_quick(tmp_path, hooks=Hooks(callbacks=[watching]), on_epoch=fail)
    assert watching._hook is None
    assert watching._outputs == []


def test_spread_is_that_of_numpy_over_batches_with_gaps():
    values = np.random.default_rng(1).normal(3.0, 2.0, 1000)
    values[::7] = np.nan
    spread = Spread()
    for part in np.array_split(values, 7):
        spread.add(torch.from_numpy(part).reshape(-1, 1))
    known = values[np.isfinite(values)]
    found = spread.describe()
    expected = {"mean": known.mean(), "std": known.std(), "min": known.min(), "max": known.max()}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12), name
    assert found["median"] == pytest.approx(np.median(known), abs=0.01)
    assert found["missing"] == pytest.approx(np.isnan(values).mean())


def test_a_constant_has_no_spread_and_nothing_has_no_mean():
    constant, unknown = Spread(), Spread()
    constant.add(torch.full((9,), 0.1))
    unknown.add(torch.full((9,), torch.nan))
    assert constant.describe()["std"] == 0.0
    assert unknown.describe() == {**dict.fromkeys(("mean", "std", "min", "max", "median")), "missing": 1.0}
    assert Spread().describe()["missing"] is None


def test_means_are_weighted():
    mean = Mean()
    mean.add({"a": torch.tensor(1.0)}, 3)
    mean.add({"a": torch.tensor(5.0)}, 1)
    assert mean.describe() == {"a": 2.0}


def test_norms_of_gradients_are_pythagorean_and_of_few_steps():
    layers = torch.nn.ModuleDict({"first": torch.nn.Linear(1, 1), "second": torch.nn.Linear(1, 1)})
    gradients, num_steps = Gradients(10 * STEPS_PER_EPOCH), 10 * STEPS_PER_EPOCH
    for step in range(num_steps):
        for value, weight in zip((3.0, 4.0, 12.0, 0.0), layers.parameters(), strict=True):
            weight.grad = torch.full_like(weight, value if step % 10 == 0 else math.nan)
        gradients.add(layers.named_parameters())
    rows = gradients.describe()
    assert [(row["layer"], row["grad_norm"]) for row in rows] == [("first", 5.0), ("second", 12.0)]
    assert {row["total_grad_norm"] for row in rows} == {13.0}
    assert Gradients(3).describe() == []


def test_overflown_steps_of_16_bit_count_for_nothing():
    weight = torch.nn.Parameter(torch.zeros(1))
    gradients = Gradients(2)
    for value in (math.inf, 2.0):
        weight.grad = torch.full_like(weight, value)
        gradients.add([("only", weight)])
    assert gradients.describe()[0]["total_grad_norm"] == math.inf
    assert gradients.describe(skip_overflow=True)[0]["total_grad_norm"] == 2.0


def test_sessions_without_levels_are_called_missing(tmp_path: Path):
    kept = Kept()
    sessions = give_tracks(make_timed(12))
    mute = replace(sessions, level_db=np.full_like(sessions.level_db, np.nan))
    model = ModelSpec(use_spectrograms=False, width=8, num_layers=1, num_heads=1)
    train, val = mute.take(np.arange(8)), mute.take(np.arange(8, 12))
    training = TrainingSpec(max_epochs=1, num_threads=1)
    folder = CheckpointFolder(tmp_path)
    fit_model(model, training, AugmentationSpec(), train, val, folder, hooks=kept.hooks())
    level = [row for row in kept.rows[FEATURES] if row["channel"] == "level_db"]
    assert [(row["missing"], row["mean"]) for row in level] == [(1.0, None), (1.0, None)]
