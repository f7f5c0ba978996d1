"""A model ready to run: its ONNX file opened once, and the network that it came from, on the same examples.

Belongs here: predicting, and calls of a given batch to be timed. Does not belong here: clocks (``stores.stopwatch``),
comparing element by element (``export.onnx_file``).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from heimdall_assets.errors import CannotLocate
from heimdall_assets.learning.export.onnx_file import build_graph, open_onnx_session, run_onnx
from heimdall_assets.learning.export.runtime import ONNX_BATCH
from heimdall_assets.learning.fitting.fitted import FittedModel
from heimdall_assets.session_set import Predictions, SessionSet


class OpenedModel:
    """An ONNX file on one thread; opening costs up to seconds, and is done once.

    Raises:
        CorruptObject: not a whole, valid ONNX file.
    """

    def __init__(self, fitted: FittedModel, data: bytes) -> None:
        self.graph = build_graph(fitted)
        self.session = open_onnx_session(data)

    def predict(self, sessions: SessionSet) -> Predictions:
        """Return what the file predicts, one row per session; see ``predict_onnx``.

        Raises:
            CannotLocate: no session holds anything to locate from.
        """
        examples, outputs, _ = run_onnx(self.graph, self.session, sessions, ONNX_BATCH)
        return self.graph.collect(sessions, examples, outputs)

    def prepare_call(self, sessions: SessionSet, batch_size: int) -> Callable[[], object]:
        """Return a call that runs the file on ``batch_size`` examples; see ``take_batch``."""
        arrays = take_batch(self, sessions, batch_size)
        return lambda: self.session.run(self.graph.outputs, arrays)

    def prepare_eager_call(self, sessions: SessionSet, batch_size: int) -> Callable[[], object]:
        """Return a call that runs the network itself, in PyTorch, on the same examples."""
        arrays = take_batch(self, sessions, batch_size)
        tensors = [torch.from_numpy(arrays[name]) for name in self.graph.inputs]

        def run() -> object:
            with torch.inference_mode():
                return self.graph.module(*tensors)

        return run


def take_batch(opened: OpenedModel, sessions: SessionSet, batch_size: int) -> dict[str, NDArray[Any]]:
    """Return inputs of exactly ``batch_size`` examples: the first ones, again from the start where there are fewer.

    Raises:
        CannotLocate: there is none.
    """
    for _, arrays in opened.graph.feed(sessions, batch_size):
        return {name: np.take(values, np.arange(batch_size) % len(values), axis=0) for name, values in arrays.items()}
    raise CannotLocate("no session holds what this model locates from: expected at least one to time it on")
