"""Ray workers: the parts of one step over all machines of a Ray cluster, through joblib.

Belongs here: joining a cluster in bounded time, and joblib's Ray backend as ``pipeline.work_pool`` needs it. Does not
belong here: steps as jobs of a cluster (``ray``), how work is cut (``pipeline.work_pool``).
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from heimdall_assets.errors import InvalidSetting, MissingDependency, WorkersLost

JOIN_S = 60.0
"""Ray itself may wait for ever for a cluster that does not answer, deaf to signals."""

START_S = 600.0
"""For the first worker: a cluster may be busy, or make its machines when they are asked for."""

POLL_S = 0.2
NUM_TRIES = 3
"""Of one piece of work, whose workers may be lost with their machine."""

_TRY = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False); ray.cluster_resources(); ray.shutdown()"

Callback = Callable[[Any], None]


class RayTasks:
    """What joblib takes for a pool of processes: each call is a task of the cluster that this process has joined.

    Ray's own pool of that kind keeps its processors for good, cannot give results as they come, and waits for ever for
    a cluster that is gone.
    """

    def __init__(self) -> None:
        import ray

        self._ray = ray
        self._task = ray.remote(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")(_call)
        self._open: dict[Any, tuple[Callable[[], Any], Callback, int]] = {}
        self._wake = threading.Event()
        self._is_closed = False
        threading.Thread(target=self._watch, name="ray-tasks", daemon=True).start()

    def apply_async(
        self, func: Callable[[], Any], args: tuple[()], callback: Callback, error_callback: Callback
    ) -> None:
        """Have a worker call ``func``; its result, or the exception that came instead, is handed to ``callback``."""
        self._submit(func, callback, 1)

    def _submit(self, func: Callable[[], Any], callback: Callback, tries: int) -> None:
        try:
            self._open[_ask(self._task.remote, func)] = (func, callback, tries)
        except Exception as error:  # whatever it is: joblib would wait for ever for what never began
            callback(_describe_loss("no worker could be asked", error))
        self._wake.set()

    def _watch(self) -> None:
        progressed_s = time.monotonic()
        while not self._is_closed:
            refs = list(self._open)
            if not refs:
                self._wake.wait()
                self._wake.clear()
                progressed_s = time.monotonic()
                continue
            try:
                ready, _ = _ask(self._ray.wait, refs, timeout=POLL_S)
                if time.monotonic() - progressed_s > START_S and not _count_processors():
                    raise ConnectionError(f"no processor left in the cluster for {START_S:g} s")
            except Exception as error:
                return self._give_up(_describe_loss("the cluster is gone", error))
            for ref in ready:
                self._finish(ref)
                progressed_s = time.monotonic()
        return None

    def _give_up(self, lost: WorkersLost) -> None:
        self._is_closed = True
        for _, callback, _ in list(self._open.values()):
            callback(lost)

    def _finish(self, ref: Any) -> None:
        func, callback, tries = self._open.pop(ref, (None, None, 0))
        if func is None or callback is None:  # ended meanwhile
            return
        try:
            result = _ask(self._ray.get, ref)
        except self._ray.exceptions.RayTaskError as error:  # what cannot be read there, or not be sent from there
            result = _describe_loss("a worker could not do its part", error.cause or error)
        except Exception as error:
            if tries < NUM_TRIES and not self._is_closed:
                self._submit(func, callback, tries + 1)
                return
            result = _describe_loss(f"lost the workers of one part {tries} times", error)
        if not self._is_closed:
            callback(result)

    def close(self) -> None:
        """Take no more; joblib calls it before ``terminate``."""
        self._is_closed = True
        self._wake.set()

    def terminate(self) -> None:
        """End what is being worked on and forget what waits."""
        for ref in list(self._open):
            with suppress(Exception):  # a cluster that is gone works on nothing
                _ask(self._ray.cancel, ref, force=True)
        self._open.clear()


def _call(func: Callable[[], Any]) -> Any:
    return func()


def _count_processors() -> int:
    import ray

    return int(_ask(ray.cluster_resources).get("CPU", 0.0))


def _ask(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Return what a call to Ray returns, from the cluster that was joined: of none, Ray would start one of its own."""
    import ray

    if not ray.is_initialized():
        raise ConnectionError("this process was cut off from it")
    return call(*args, **options)


def _describe_loss(what: str, error: BaseException) -> WorkersLost:
    line = " ".join(str(error).split())
    return WorkersLost(f"HEIMDALL_WORK_POOL ray: {what} ({type(error).__name__}: {line:.300})")


def build_backend(ray_address: str) -> Any:
    """Return joblib's backend whose workers are those of a Ray cluster, which this process joins until it ends.

    A process that Ray itself started joins the cluster that it is of, and so does one whose ``RAY_ADDRESS`` names one.
    Else ``ray://HEAD:10001`` is joined from wherever that is reached; another address leaves the cluster that this
    machine is a node of.

    Raises:
        MissingDependency: Ray is not installed.
        InvalidSetting: no cluster answers in time, or it answers only holders of another token.
    """
    try:
        import ray
        from ray.util.joblib.ray_backend import RayBackend
    except ImportError as error:
        raise MissingDependency("HEIMDALL_WORK_POOL ray: found no Ray; install heimdall-assets[ray]") from error
    if not ray.is_initialized():
        _join(os.environ.get("RAY_ADDRESS") or (ray_address if ray_address.startswith("ray://") else "auto"))

    class ClusterBackend(RayBackend):  # type: ignore[misc, unused-ignore]  # Any where Ray is not installed
        """Ray's own, with results as they come, and what was lost told instead of waited for."""

        supports_return_generator = True

        def effective_n_jobs(self, n_jobs: int) -> int:
            """Return how many pieces of work may run at once; of one, joblib would do it here."""
            return max(2, _count_processors())

        def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
            _await_worker()
            self.parallel, self._pool = parallel, RayTasks()
            return self.effective_n_jobs(n_jobs)

        def abort_everything(self, ensure_ready: bool = True) -> None:
            super().abort_everything(ensure_ready=False)

    return ClusterBackend()


def _await_worker() -> None:
    """Do nothing once a first worker has answered.

    Raises:
        InvalidSetting: none did in time.
    """
    import ray

    task = ray.remote(num_cpus=1, max_retries=0)(_call).remote(os.getpid)
    try:
        ray.get(task, timeout=START_S)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(task, force=True)
        found = ray.available_resources().get("CPU", 0.0)
        line = f"no worker started within {START_S:g} s; found {found:g} processors free in the cluster, expected 1"
        raise InvalidSetting(f"HEIMDALL_WORK_POOL ray: {line}") from None
    except Exception as error:
        raise _describe_loss("no worker answers", error) from error


def _join(address: str) -> None:
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    try:
        if not address.startswith("ray://"):
            _try_to_join(address)
        # What Ray has to say of itself is no part of what a command prints.
        logging.getLogger("ray").setLevel(logging.ERROR)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise _refuse_cluster(address, str(error)) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray sets its own, which ends a step that would save what it has


def _try_to_join(address: str) -> None:
    """Do nothing where another process, which can be ended, finds the cluster."""
    command = [sys.executable, "-W", "ignore", "-c", _TRY, address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=JOIN_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise ConnectionError(f"no answer within {JOIN_S:g} s") from error
    if done.returncode != 0:
        token = "InvalidAuthToken" in done.stderr
        raise ConnectionError("RAY_AUTH_TOKEN is not its token" if token else done.stderr.strip().rpartition("\n")[2])


def _refuse_cluster(address: str, why: str) -> InvalidSetting:
    expected = "expected a machine that is its node, or HEIMDALL_RAY_ADDRESS ray://HEAD:10001, and RAY_AUTH_TOKEN"
    line = " ".join(why.split())
    return InvalidSetting(f"HEIMDALL_WORK_POOL ray, {address}: found no cluster that answers ({line:.200}), {expected}")
