"""What stands around a fit: whom it tells of what, and what it begins from other than seeds.

Belongs here: the parts of ``fit_model``'s arguments that stand together. Does not belong here: settings (``specs``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from heimdall_assets.training_tables import Moment, Record

if TYPE_CHECKING:
    from lightning import Callback

    from heimdall_assets.learning.fitting.fitted import FittedModel
    from heimdall_assets.learning.teaching import Teacher


class GpuMeters(Protocol):
    """Reads one GPU, by its UUID as torch says it (None: the first)."""

    def read_power_w(self, uuid: str | None) -> float | None:
        """Return what it draws in watt; None: it does not say."""

    def read_temperature_c(self, uuid: str | None) -> float | None:
        """Return how hot it is in degrees Celsius; None: it does not say."""


def ignore(_: str) -> None:
    """Hear of it and do nothing."""


@dataclass(frozen=True)
class Hooks:
    """Whom a fit tells; no result depends on it.

    Attributes:
        on_notice: a line for people, of what is done otherwise than asked.
        record: rows of diagnostics, as they come.
        on_step: where it is, after each step.
        callbacks: more of Lightning's; with several processes they run in the first of them and are pickled for it.
        meters: reads a GPU's power and temperature; None: nothing can.
    """

    on_notice: Callable[[str], None] = ignore
    record: Record | None = None
    on_step: Callable[[Moment], None] | None = None
    callbacks: "Sequence[Callback]" = ()
    meters: GpuMeters | None = None


@dataclass(frozen=True)
class Start:
    """What a fit begins with other than seeds and labels.

    Attributes:
        model: a fitted one: its weights, and its statistics in place of those of the new training split, so that the
            first step begins with what it had learned.
        teacher: whose answers are learned beside the labels; None: labels alone.
        facts: what the result's facts say of it.
    """

    model: "FittedModel | None" = None
    teacher: "Teacher | None" = None
    facts: Mapping[str, Any] = field(default_factory=dict)
