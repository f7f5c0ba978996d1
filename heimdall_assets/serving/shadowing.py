"""Shadowing: what another model would have said, computed after the answer was sent, and compared with it.

Belongs here: the bounded queue, the thread that takes from it when nobody waits for an answer, the comparison. Does not
belong here: answering. Nothing is kept on disk: comparisons count from the start of the service.
"""

import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from heimdall_assets.errors import CannotLocate, HeimdallError
from heimdall_assets.inference import Answer, Receiver
from heimdall_assets.locating.estimates import measure_offset
from heimdall_assets.serving.metrics import Metrics
from heimdall_assets.serving.predictors import Predictors

_LOG = logging.getLogger(__name__)

NUM_REMEMBERED = 10_000
"""Distances of a pair of models from which its percentiles are taken, the latest ones."""

MAX_SAMPLES = 16_000_000
"""Samples of recordings in the queue together: 128 MB."""

LOOK_S = 0.005
NICE = 10
"""Of the shadow's thread: answers come first where processors are short."""

COMPARED, DROPPED, FAILED = "compared", "dropped", "failed"
ONLY_SHADOW, ONLY_ANSWER, BOTH = "only_shadow_refused", "only_answer_refused", "both_refused"


@dataclass(frozen=True)
class ShadowJob:
    """One request that was answered, for another model.

    Attributes:
        receivers: of the request.
        version: that answered.
        answer: None: it refused.
        shadow: version that computes beside.
    """

    receivers: Sequence[Receiver]
    version: str
    answer: Answer | None
    shadow: str

    @property
    def num_samples(self) -> int:
        """Samples of its recordings."""
        return sum(one.recording.samples.size for one in self.receivers if one.recording is not None)


@dataclass
class Comparison:
    """What a pair of models said of the same requests."""

    outcomes: dict[str, int] = field(default_factory=dict)
    distance_m: deque[float] = field(default_factory=lambda: deque(maxlen=NUM_REMEMBERED))
    distance_sigmas: deque[float] = field(default_factory=lambda: deque(maxlen=NUM_REMEMBERED))


class Shadow:
    """The queue and its thread.

    Args:
        predictors: opened models.
        metrics: that are told.
        max_jobs: in the queue; more are dropped and counted.
        is_idle: whether nobody waits for an answer.
    """

    def __init__(self, predictors: Predictors, metrics: Metrics, max_jobs: int, is_idle: Callable[[], bool]):
        self._predictors, self._metrics, self._is_idle = predictors, metrics, is_idle
        self._queue: queue.Queue[ShadowJob] = queue.Queue(max_jobs)
        self._lock = threading.Lock()
        self._num_samples = 0
        self._num_dropped = 0
        self._pairs: dict[tuple[str, str], Comparison] = {}
        self._stopped = threading.Event()

    def offer(self, job: ShadowJob) -> None:
        """Take a job, or drop it where too many wait; never waits."""
        with self._lock:
            is_full = self._num_samples + job.num_samples > MAX_SAMPLES
            try:
                if is_full:
                    raise queue.Full
                self._queue.put_nowait(job)
                self._num_samples += job.num_samples
            except queue.Full:
                self._num_dropped += 1
                self._metrics.shadow.labels(job.version, job.shadow, DROPPED).inc()

    def start(self) -> None:
        """Begin to compute, in a thread that ends with the process."""
        threading.Thread(target=self._run, name="shadow", daemon=True).start()

    def stop(self) -> None:
        """Take no further job."""
        self._stopped.set()

    def describe(self) -> dict[str, Any]:
        """Return what ``/v1/shadow`` says."""
        with self._lock:
            pairs = [_describe(*pair, found) for pair, found in sorted(self._pairs.items())]
            return {"num_waiting": self._queue.qsize(), "num_dropped": self._num_dropped, "pairs": pairs}

    def _run(self) -> None:
        with suppress(OSError, AttributeError):  # on Linux a thread has a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while not self._stopped.is_set():
            try:
                job = self._queue.get(timeout=0.2)
            except queue.Empty:
                continue
            while not self._is_idle() and not self._stopped.wait(LOOK_S):
                pass
            if not self._stopped.is_set():
                self._compare(job)

    def _compare(self, job: ShadowJob) -> None:
        try:
            other = self._ask(job)
            outcome, offset = _judge(job.answer, other)
        except Exception as error:  # whatever a challenger does costs nobody an answer, and not the next comparison
            _LOG.warning("shadow %s: %s", job.shadow, f"{type(error).__name__}: {error}")
            outcome, offset = FAILED, None
        with self._lock:
            self._num_samples -= job.num_samples
            found = self._pairs.setdefault((job.version, job.shadow), Comparison())
            found.outcomes[outcome] = found.outcomes.get(outcome, 0) + 1
            if offset is not None:
                found.distance_m.append(offset[0])
                found.distance_sigmas.append(offset[1])
        self._metrics.shadow.labels(job.version, job.shadow, outcome).inc()
        if offset is not None:
            self._metrics.shadow_m.labels(job.version, job.shadow).observe(offset[0])
            self._metrics.shadow_sigmas.labels(job.version, job.shadow).observe(offset[1])

    def _ask(self, job: ShadowJob) -> Answer | None:
        try:
            return self._predictors.take(job.shadow).locate(job.receivers)
        except CannotLocate:
            return None
        except HeimdallError:
            raise


def _judge(answer: Answer | None, other: Answer | None) -> tuple[str, tuple[float, float] | None]:
    """Return what became of a comparison, and the distance between both places, in m and in sigmas of the answer."""
    if answer is None or other is None:
        return (BOTH if answer is other else ONLY_ANSWER if answer is None else ONLY_SHADOW), None
    return COMPARED, measure_offset(answer.estimate, (other.estimate.latitude, other.estimate.longitude))


def _describe(version: str, shadow: str, found: Comparison) -> dict[str, Any]:
    counted = {f"num_{outcome}": found.outcomes.get(outcome, 0) for outcome in (COMPARED, ONLY_SHADOW, ONLY_ANSWER)}
    counted |= {f"num_{outcome}": found.outcomes.get(outcome, 0) for outcome in (BOTH, FAILED)}
    spread = {"distance_m": _spread(found.distance_m), "distance_sigmas": _spread(found.distance_sigmas)}
    return {"answered_by": version, "shadow": shadow, **counted, **spread}


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {"p50": None, "p95": None, "largest": None}
    p50, p95, largest = np.percentile(np.array(values), [50.0, 95.0, 100.0])
    return {"p50": float(p50), "p95": float(p95), "largest": float(largest)}
