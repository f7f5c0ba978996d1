"""What one kind of model must offer so that fitting, encoding, exporting and judging are the same code for all kinds.

Belongs here: the ``Task`` protocol, what it is handed and gives, the registry of kinds. Does not belong here: any
model.
What a task learns from data is ``statistics`` and ``calibration`` (JSON values, stored beside the weights) and the
network's weights; nothing else outlives a fit (each fit and each decoded model has a task of its own). "Examples" are
the integers an epoch draws batches of: rows of the receiver columns for ``single_receiver``, sessions for ``network``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.errors import InvalidSetting
from heimdall_assets.manifests import compute_digest
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.specs import AugmentationSpec, ModelSpec, TrainingSpec
from heimdall_assets.training_tables import Record

if TYPE_CHECKING:
    from torch import Tensor, nn


RATE_SEARCH = "learning_rate_search"
"""Among the facts of a fit: what a range test of the learning rate saw, where there was one."""


@dataclass(frozen=True)
class PretrainedWeights:
    """What a backbone starts from: the bytes of a safetensors file, and in words whose they are."""

    source: str
    data: bytes

    @property
    def digest(self) -> str:
        return compute_digest(self.data)


@dataclass(frozen=True)
class ExportGraph:
    """What ``export_onnx`` traces, and how a session set is fed to the result.

    Attributes:
        module: in ``eval`` mode; ``forward`` takes the tensors of ``inputs`` in their order and returns the tensors of
            ``outputs`` in theirs. Statistics, calibration, and the way back to degrees and metres are inside.
        inputs: input name -> example tensor. Each dynamic axis needs a length of at least 2, no two axes the same
            length, else the exporter bakes it in.
        dynamic_axes: input name -> {axis: name}; axes of one name have one length.
        outputs: names of the outputs; ``positions`` (batch, 2) latitude and longitude in degrees, float64, and
            ``uncertainties`` (batch, 2) north and east sigma in metres come first.
        feed: session set, batch size -> (examples (B,), input name -> array) until every usable example was given.
        collect: session set, examples (E,), output name -> array (E, ...) -> one prediction per session.
        facts: facts of the graph for ``metadata_props`` (units, normalisation), values are strings.
        collect_signals: as ``collect``, but gives signal output -> one row per session; None: no such outputs.
        kept_whole: names of modules whose numbers no variant of the file may round.
    """

    module: "nn.Module"
    inputs: "dict[str, Tensor]"
    dynamic_axes: dict[str, dict[int, str]]
    outputs: list[str]
    feed: Callable[[SessionSet, int], Iterator[tuple[NDArray[np.int64], dict[str, NDArray[Any]]]]]
    collect: Callable[[SessionSet, NDArray[np.int64], dict[str, NDArray[Any]]], Predictions]
    facts: dict[str, str]
    collect_signals: (
        Callable[[SessionSet, NDArray[np.int64], dict[str, NDArray[Any]]], dict[str, NDArray[Any]]] | None
    ) = None
    kept_whole: tuple[str, ...] = ()


class Task(Protocol):
    """One kind of model. ``statistics`` is what ``fit_statistics`` gave, ``calibration`` what ``calibrate`` gave."""

    kind: str
    input_statistics: tuple[str, ...]
    """Statistics that a batch depends on: where two models agree on them, both read the same batches."""

    def extend_training(self, train: SessionSet, training: TrainingSpec) -> SessionSet:
        """Return the sessions to train on: ``train``, with simulated ones added where the spec asks for them."""

    def fit_statistics(self, model: ModelSpec, train: SessionSet) -> dict[str, Any]:
        """Return what normalisation needs, from the training split alone; JSON values."""

    def build_network(
        self, model: ModelSpec, statistics: dict[str, Any], weights: PretrainedWeights | None = None
    ) -> "nn.Module":
        """Return the network, its initial weights drawn from torch's global generator (seeded by the caller).

        A backbone starts from ``weights``, which belong to ``model.pretrained``.
        """

    def start_network(
        self, network: "nn.Module", model: ModelSpec, train: SessionSet, statistics: dict[str, Any]
    ) -> None:
        """Set weights that are computed from the training split instead of trained; once, before training."""

    def list_examples(self, sessions: SessionSet) -> NDArray[np.int64]:
        """Return the examples that can be trained on: with data, and with known truth; ascending, maybe none."""

    def name_examples(self, sessions: SessionSet, examples: NDArray[np.int64]) -> list[str]:
        """Return what people know each example by: its session, and its receiver where it is one's."""

    def make_batch(
        self,
        sessions: SessionSet,
        examples: NDArray[np.int64],
        statistics: dict[str, Any],
        augmentation: AugmentationSpec | None = None,
        rng: np.random.Generator | None = None,
    ) -> "dict[str, Tensor]":
        """Return one batch, first axis ``len(examples)`` in each tensor; disturbed only where a spec is given."""

    def compute_loss(self, network: "nn.Module", batch: "dict[str, Tensor]", epoch: int) -> "dict[str, Tensor]":
        """Return scalars; ``loss`` is minimised and, on validation, watched; the others are logged beside it."""

    def list_channels(self, batch: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Return channel -> what the network is shown of it in a batch of ``make_batch``, NaN for what is missing."""

    def measure_outputs(self, output: Any, batch: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Return what the network's own output says of a batch's positions, a value (B,) an example.

        ``error_m``; ``sigma_m``, the one-sigma error that it states, root mean square of both axes; ``squared_z``, the
        squared error in units of the stated ellipse with the label's own error added. Nothing of it is calibrated.
        """

    def report_to(self, record: Record) -> None:
        """Have ``finish_network`` tell rows of ``training_tables`` of the epochs of what it fits, if it has such."""

    def list_blocks(self, network: "nn.Module") -> "list[nn.Module]":
        """Return the parts, one after the other, whose activations may be computed again instead of kept."""

    def ask_teacher(self, teacher: "nn.Module", batch: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Return a teacher's answers to a batch; beside it, they have ``compute_loss`` add ``teacher_loss``."""

    def finish_network(
        self, network: "nn.Module", train: SessionSet, val: SessionSet, training: TrainingSpec
    ) -> dict[str, Any]:
        """Fit what shares no weight with the rest, after training and on the CPU; return facts, ``{}`` for none."""

    def calibrate(self, network: "nn.Module", val: SessionSet, statistics: dict[str, Any]) -> dict[str, Any]:
        """Return what makes sigmas honest, fitted on the validation split; JSON values, ``{}`` for none."""

    def predict(
        self, network: "nn.Module", sessions: SessionSet, statistics: dict[str, Any], calibration: dict[str, Any]
    ) -> Predictions:
        """Return one prediction per session; sessions without usable data are refused, never guessed."""

    def make_export_graph(
        self, network: "nn.Module", model: ModelSpec, statistics: dict[str, Any], calibration: dict[str, Any]
    ) -> ExportGraph:
        """Return what the exporter traces; it must compute what ``predict`` computes."""


_TASKS = {
    "single_receiver": "heimdall_assets.learning.receiver_model.task:SingleReceiverTask",
    "network": "heimdall_assets.learning.session_model.task:NetworkTask",
}


def find_task(kind: str) -> Task:
    """Return the task of a model kind; torch is imported with it.

    Raises:
        InvalidSetting: no such kind.
    """
    if kind not in _TASKS:
        raise InvalidSetting(f"model kind {kind!r:.60}: expected one of {', '.join(_TASKS)}")
    module, name = _TASKS[kind].split(":")
    task: Task = getattr(import_module(module), name)()
    return task
