"""Single runs: an exported model fed with one example at a time, for whoever asks how long that takes.

Belongs here: what is to be run. Does not belong here: a clock (none below the graph), what the answers are
(``onnx_file``).
"""

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

from heimdall_assets.learning.export.onnx_file import open_onnx_session
from heimdall_assets.learning.fitting.fitted import FittedModel
from heimdall_assets.session_set import SessionSet


def list_single_runs(
    fitted: FittedModel, data: bytes, sessions: SessionSet, limit: int, num_threads: int = 1
) -> list[Callable[[], Any]]:
    """Return a call for each of the first ``limit`` examples, which runs the ONNX file on it alone.

    Args:
        fitted: the model the file was exported from; says how sessions are fed.
        data: the file.
        sessions: where examples come from; none is made of one that holds nothing to locate from.
        limit: examples at most.
        num_threads: of ONNX Runtime.

    Raises:
        CorruptObject: not a whole, valid ONNX file.
    """
    graph = fitted.task.make_export_graph(fitted.network, fitted.model, fitted.statistics, fitted.calibration)
    session = open_onnx_session(data, num_threads)
    fed = islice(graph.feed(sessions, 1), limit)
    return [partial(session.run, graph.outputs, arrays) for _, arrays in fed]
