"""Following: a training that runs, as it is told in its folder: a table that changes, lines, or JSON.

Belongs here: reading the folder again and again, elapsed and remaining time. Does not belong here: whoever writes it
(``stores.runs.writing``), the bar of ``heimdall train`` (``terminal.progress``).
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from heimdall_assets.cli.terminal.output import to_plain, write_text
from heimdall_assets.pipeline.runs import TrainingRun, read_training_tables
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.runs.writing import RUNNING
from heimdall_assets.training_tables import EPOCHS, POSITIONS, SIGNALS, take, take_numbers

if TYPE_CHECKING:
    from rich.table import Table

LOOK_EVERY_S = 1.0
LINE_EVERY_S = 10.0
"""Where there is no terminal, a training that ends no epoch tells of its step this often."""

RECENT = 5
"""Epochs whose mean time says how long the next ones take."""


@dataclass(frozen=True)
class Standing:
    """Where a training stands; epochs count from 1, times are seconds, None is what nobody knows yet."""

    id: str
    status: str
    part: str
    epoch: int
    max_epochs: int | None
    step: int | None
    num_steps: int | None
    elapsed_s: float | None
    eta_s: float | None
    train_loss: float | None
    val_loss: float | None
    best_val_loss: float | None
    best_epoch: int | None
    samples_per_s: float | None


class _Shown(Protocol):
    def show(self, now: Standing) -> None: ...


def follow(stores: Stores, run: TrainingRun, as_json: bool) -> None:
    """Show where a training stands until it has ended."""
    with _open(as_json) as shown:
        while True:
            now = read_standing(stores, run)
            shown.show(now)
            if now.status != RUNNING:
                break
            time.sleep(LOOK_EVERY_S)
            if run.is_here and stores.runs is not None:
                run = TrainingRun(stores.runs.read(run.id), run.releases, run.is_here)
    if not as_json:
        best = "" if now.best_val_loss is None else f", best val_loss {now.best_val_loss:.4f} at epoch {now.best_epoch}"
        write_text(f"training {now.id}: {now.status}{best}")


def read_standing(stores: Stores, run: TrainingRun) -> Standing:
    """Return where a training stands."""
    rows = read_training_tables(stores, run)[EPOCHS]
    epochs, heard = take(rows), take(rows, SIGNALS)
    is_here = run.is_here and stores.runs is not None
    moment = stores.runs.read_progress(run.id) if is_here and stores.runs is not None else None
    losses = [(loss, row) for row in epochs if isinstance(loss := row["val_loss"], int | float) and loss == loss]
    best, at = min(losses, key=lambda pair: pair[0]) if losses else (None, {"epoch": None})
    last = epochs[-1] if epochs else {}
    most = run.told.get("settings", {}).get("TrainingSpec", {}).get("max_epochs")
    running = run.told["status"] == RUNNING
    under_way = running and moment is not None and moment["epoch"] >= len(epochs)
    best_epoch = at["epoch"]
    return Standing(
        id=run.id,
        status=str(run.told["status"]),
        part=SIGNALS if heard else POSITIONS,
        epoch=int(moment["epoch"]) + 1 if under_way and moment is not None else len(epochs),
        max_epochs=most,
        step=moment["step"] if moment else None,
        num_steps=moment["num_steps"] if moment else None,
        elapsed_s=_measure_elapsed(run.told),
        eta_s=_estimate_rest(take_numbers(epochs, "epoch_time"), most, moment) if running and not heard else None,
        train_loss=_number(last.get("train_loss")),
        val_loss=_number(last.get("val_loss")),
        best_val_loss=best,
        best_epoch=int(best_epoch) + 1 if isinstance(best_epoch, int) else None,
        samples_per_s=_number((moment or {}).get("samples_per_s")) or _number(last.get("samples_per_s")),
    )


def _estimate_rest(times_s: list[float], most: int | None, moment: Mapping[str, Any] | None) -> float | None:
    """Return how long all the epochs that are allowed would take still; early stopping makes it less."""
    if not times_s or most is None:
        return None
    recent = times_s[-RECENT:]
    part = 0.0
    if moment is not None and moment["epoch"] == len(times_s) and moment["num_steps"]:
        part = moment["step"] / moment["num_steps"]
    return max(0.0, (most - len(times_s) - part) * sum(recent) / len(recent))


def _measure_elapsed(told: Mapping[str, Any]) -> float | None:
    """Return how long the training has been under way since it began or went on."""
    begun = (told.get("attempts") or [told.get("started")])[-1]
    if begun is None:
        return None
    ended = told.get("ended")
    end = datetime.now(UTC) if ended is None else datetime.fromisoformat(ended)
    return max(0.0, (end - datetime.fromisoformat(begun)).total_seconds())


@contextmanager
def _open(as_json: bool) -> Iterator[_Shown]:
    if as_json:
        yield _JsonLines()
    elif sys.stdout.isatty():
        from rich.live import Live

        with Live(refresh_per_second=4) as live:
            yield _Changing(live)
    else:
        yield _Lines()


class _JsonLines:
    """An object a line, whenever something but the clock changed."""

    def __init__(self) -> None:
        self._before: dict[str, Any] = {}

    def show(self, now: Standing) -> None:
        told = asdict(now)
        known = {name: value for name, value in told.items() if not name.endswith("_s")}
        if known != self._before:
            self._before = known
            write_text(json.dumps(to_plain(told)))


class _Lines:
    """A line an epoch, and one now and then within a long one."""

    def __init__(self) -> None:
        self._before: tuple[str, str, int, float | None] | None = None
        self._told_s = -LINE_EVERY_S

    def show(self, now: Standing) -> None:
        stands = (now.status, now.part, now.epoch, now.val_loss)
        if stands == self._before and time.monotonic() - self._told_s < LINE_EVERY_S:
            return
        self._before, self._told_s = stands, time.monotonic()
        write_text(", ".join(f"{name} {value}" for name, value in describe_standing(now).items() if value != "-"))


class _Changing:
    """One table that is drawn anew."""

    def __init__(self, live: Any) -> None:
        self._live = live

    def show(self, now: Standing) -> None:
        self._live.update(_draw(describe_standing(now)))


def describe_standing(now: Standing) -> dict[str, str]:
    """Return name -> text of all that is shown of a training."""
    of_most = "" if now.max_epochs is None else f"/{now.max_epochs}"
    return {
        "training": now.id,
        "status": now.status if now.part == POSITIONS else f"{now.status}, signal heads",
        "epoch": f"{now.epoch}{of_most}",
        "step": "-" if now.step is None else f"{now.step}/{now.num_steps}",
        "elapsed": _show_time(now.elapsed_s),
        "at most": _show_time(now.eta_s),
        "train_loss": _show_loss(now.train_loss),
        "val_loss": _show_loss(now.val_loss),
        "best val_loss": _show_loss(now.best_val_loss)
        + ("" if now.best_epoch is None else f" (epoch {now.best_epoch})"),
        "samples/s": "-" if now.samples_per_s is None else f"{now.samples_per_s:.0f}",
    }


def _draw(told: Mapping[str, str]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column()
    for name, value in told.items():
        grid.add_row(Text(name), Text(value))
    return grid


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _show_loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _show_time(seconds: float | None) -> str:
    """Return a time as hours, minutes and seconds.

    Examples:
        >>> _show_time(3725.4), _show_time(None)
        ('1:02:05', '-')
    """
    if seconds is None:
        return "-"
    whole = round(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
