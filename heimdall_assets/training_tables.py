"""What a training writes as it runs: the names of its tables, their columns and what each holds; their rows as CSV.

Belongs here: words and the form of a line. Does not belong here: measuring (``learning.fitting.diagnostics``), files
(``stores.runs``), judging (``evaluation.assessment``).
Epochs count from 0, as in the history of a checkpoint; people are told them from 1. A model of several parts is fitted
one part after the other: positions first, then the signal heads, which share no weight with them; each part has epochs
of its own.
"""

import csv
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from heimdall_assets.errors import InvalidInput

Value = float | int | str | None
Row = dict[str, Value]
Record = Callable[[str, Row], None]
"""Called with the name of a table and a row of it."""


@dataclass(frozen=True)
class Moment:
    """Where a training is: so many batches of the epoch's are learned from, and so many examples in them."""

    epoch: int
    step: int
    num_steps: int
    num_examples: int


TRAIN, VAL = "train", "val"
POSITIONS, SIGNALS = "positions", "signals"
PARTS = (POSITIONS, SIGNALS)
"""In the order in which they are fitted."""

EPOCHS, LOSSES, UNCERTAINTY, PROBABILITY, FEATURES, GRADIENTS = (
    "epoch_metrics",
    "loss_components",
    "uncertainty_params",
    "probability_stats",
    "feature_stats",
    "gradient_stats",
)

_EPOCH = {"epoch": "epoch within the part, from 0"}
_PHASE = {"phase": "train: the batches that were learned from, disturbed as they were; val: validation"}
_PART = {"part": "what was fitted: positions, or signals, the heads of `ModelSpec.multi_target`"}

TASKS = {
    "position": "where: the likelihood of the position and its ellipse",
    "type": "what: voice, tone or DTMF",
    "ptr": "pointers: whether onset and end lie within, and where",
    "span": "which parts of the recording are transmission",
    "countdown": "frames until the onset",
}
"""Tasks by the words of the tables."""

NO_COUNTDOWN = "always empty: the countdown follows from the onset, which `loss_ptr` covers"
NO_TASK_SIGMA = (
    "always empty: no task's weight is learned, for positions and signals share no weight, and there is nothing to "
    "balance"
)


@dataclass(frozen=True)
class Table:
    """One table: what it is about, and column -> what it holds, in the order of the file."""

    about: str
    columns: dict[str, str]


TABLES = {
    EPOCHS: Table(
        "One row an epoch: how it went.",
        {
            **_EPOCH,
            "train_loss": "mean loss of the batches learned from",
            "val_loss": "mean loss on validation; the lowest one's weights are kept",
            "span_f1": "signals: F1 of which parts of recordings are transmission, at 0.5; positions: empty",
            "span_precision": "signals: share of what is taken for transmission that is; positions: empty",
            "span_recall": "signals: share of transmission that is found; positions: empty",
            "epoch_time": "seconds it took, validation included",
            "val_error_m": "positions: median error on validation, metres, before calibration; signals: empty",
            "learning_rate": "step size at its end",
            "steps": "batches learned from so far; signals: empty",
            "samples_per_s": "examples learned from a second (`TrainingSpec.batch_size` says of what); signals: empty",
            **_PART,
        },
    ),
    LOSSES: Table(
        "One row an epoch and phase: what the loss is made of.",
        {
            **_EPOCH,
            **_PHASE,
            "loss_position": f"{TASKS['position']}; signals: empty",
            "loss_type": f"{TASKS['type']}; positions: empty",
            "loss_ptr": f"{TASKS['ptr']}; positions: empty",
            "loss_span": f"{TASKS['span']}; positions: empty",
            "loss_countdown": NO_COUNTDOWN,
            "total_loss": "what is minimised: their sum",
            "loss_snr": "the SNR, in no other table of the kind; positions: empty",
            **_PART,
        },
    ),
    UNCERTAINTY: Table(
        "One row an epoch: how sure the model is of itself on validation, before calibration, and what a task weighs.",
        {
            **_EPOCH,
            "sigma_position": "median one-sigma error that the model states, root mean square of its two axes, metres; "
            "signals: empty",
            "sigma_type": NO_TASK_SIGMA,
            "sigma_ptr": NO_TASK_SIGMA,
            "sigma_span": NO_TASK_SIGMA,
            "sigma_countdown": NO_TASK_SIGMA,
            "weight_position": "of `loss_position` in the total: 1, constant; signals: empty",
            "weight_type": "of `loss_type` in the total: 1, constant; positions: empty",
            "weight_ptr": "of `loss_ptr` in the total: 1, constant; positions: empty",
            "weight_span": "of `loss_span` in the total: 1, constant; positions: empty",
            "weight_countdown": NO_COUNTDOWN,
            "squared_z": "median squared error in units of the stated ellipse; 1.39 where it is honest (chi-square "
            "of two degrees); signals: empty",
            **_PART,
        },
    ),
    PROBABILITY: Table(
        "One row an epoch and phase: probability of transmission that the signal heads give the parts of recordings.",
        {
            **_EPOCH,
            **_PHASE,
            "in_span_mean": "mean over parts that are transmission",
            "in_span_std": "their standard deviation",
            "out_span_mean": "mean over parts that are none",
            "out_span_std": "their standard deviation",
            "separation": "in_span_mean - out_span_mean",
            **_PART,
        },
    ),
    FEATURES: Table(
        "One row a channel and phase of every tenth epoch, from the first: what the network is shown.",
        {
            **_EPOCH,
            **_PHASE,
            "channel": "column of the receivers' table, or channel of the spectrogram, standardised",
            "mean": "over all that is known",
            "std": "their standard deviation",
            "min": "smallest",
            "max": "largest",
            "median": "of up to 4096 values of each batch, evenly spaced",
            "missing": "share of values that nobody knows",
            **_PART,
        },
    ),
    GRADIENTS: Table(
        "One row an epoch and layer: gradients before they are clipped, of 16 steps of the epoch, evenly spaced.",
        {
            **_EPOCH,
            "layer": "part of the network, by name",
            "grad_norm": "mean norm of its gradient",
            "total_grad_norm": "mean norm of the whole gradient; the same in each row of the epoch",
            "max_grad_norm": "largest of these norms of the whole gradient",
            **_PART,
        },
    ),
}
"""All tables; the file of each is its name and ``.csv``."""


def name_file(table: str) -> str:
    """Return the name of the file of a table."""
    return f"{table}.csv"


def encode_head(table: str) -> bytes:
    """Return the first line of the file of a table."""
    return _encode_line(list(TABLES[table].columns))


def encode_row(table: str, row: Mapping[str, Value]) -> bytes:
    """Return a row as a whole line; what it does not hold is an empty cell.

    Raises:
        InvalidInput: it holds a column that the table does not have.
    """
    columns = TABLES[table].columns
    strange = row.keys() - columns.keys()
    if strange:
        raise InvalidInput(f"table {table}: found column {sorted(strange)[0]!r}, expected {', '.join(columns)}")
    return _encode_line([_encode_cell(row.get(name)) for name in columns])


def decode_rows(table: str, data: bytes) -> list[Row]:
    """Return the whole lines of a table's file as rows; a last line without its end is still being written.

    Raises:
        InvalidInput: the file is none of this table's.
    """
    whole = data[: data.rfind(b"\n") + 1].decode("utf-8", "replace")
    lines = list(csv.reader(io.StringIO(whole)))
    columns = list(TABLES[table].columns)
    if not lines:
        return []
    if lines[0] != columns or any(len(line) != len(columns) for line in lines):
        raise InvalidInput(f"{name_file(table)}: found a line {','.join(lines[0])!r:.80}, expected {','.join(columns)}")
    return [{name: _decode_cell(cell) for name, cell in zip(columns, line, strict=True)} for line in lines[1:]]


def find_place(row: Mapping[str, Value]) -> tuple[int, int]:
    """Return where in a training a row belongs: part, then epoch."""
    part, epoch = row.get("part"), row.get("epoch")
    if part not in PARTS or not isinstance(epoch, int):
        raise InvalidInput(
            f"row of a training: found part {part!r}, epoch {epoch!r}, expected {', '.join(PARTS)}, a number"
        )
    return PARTS.index(str(part)), epoch


def take(rows: list[Row], part: str = POSITIONS, phase: str | None = None) -> list[Row]:
    """Return the rows of one part, and of one phase where it is given."""
    return [row for row in rows if row["part"] == part and (phase is None or row.get("phase") == phase)]


def take_numbers(rows: list[Row], column: str) -> list[float]:
    """Return the numbers of a column in the order of the rows; empty cells and words are left out, NaN is not."""
    return [float(value) for row in rows if isinstance(value := row.get(column), int | float)]


def _encode_line(cells: list[str]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue().encode()


def _encode_cell(value: Value) -> str:
    if value is None:
        return ""
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _decode_cell(cell: str) -> Value:
    if not cell:
        return None
    try:
        return int(cell)
    except ValueError:
        pass
    try:
        number = float(cell)
    except ValueError:
        return cell
    return number if math.isfinite(number) or cell.lower().lstrip("-") in ("nan", "inf") else cell
