"""Monitor of an experiment run: how its machine was used while it was under way, as MLflow's ``system/...`` figures.

Belongs here: starting and ending MLflow's monitor, so that nothing of it outlives the run. Processors, memory, disk and
network come from psutil, GPUs from NVML where there are some. A process that is killed takes its thread along.
"""

import logging
import threading
from typing import Any

from heimdall_assets.stores.experiments import prepare_mlflow

SAMPLE_S = 5.0
"""Seconds between two looks at the machine ..."""

SAMPLES = 3
"""... of which so many are one point: a training of ten hours has 2400 of each figure, some 5 MB embedded."""

_LOGGER = "mlflow.system_metrics.system_metrics_monitor"


class MachineMonitor:
    """Tells a run how its machine is used, from ``start`` to ``stop``."""

    def __init__(self, tracking_uri: str, run_id: str):
        self._uri, self._run_id = tracking_uri, run_id
        self._monitor: Any = None

    def start(self) -> None:
        """Begin to watch; a run that is taken up again goes on behind its last point."""
        prepare_mlflow()
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        # A store that went away is told of once, by whoever tells it more.
        logging.getLogger(_LOGGER).setLevel(logging.CRITICAL)
        self._monitor = SystemMetricsMonitor(  # type: ignore[no-untyped-call]
            self._run_id,
            sampling_interval=SAMPLE_S,
            samples_before_logging=SAMPLES,
            resume_logging=True,
            tracking_uri=self._uri,
        )
        self._monitor.start()

    def stop(self) -> None:
        """End the thread, and tell what it saw since its last point: a short training has one, too."""
        monitor, self._monitor = self._monitor, None
        if monitor is None:
            return
        monitor.finish()
        monitor.collect_metrics()
        if seen := monitor.aggregate_metrics():
            monitor.publish_metrics(seen)
            monitor.mlflow_logger.flush()

    def abandon(self) -> None:
        """End the thread and tell nothing more: the store went away, and its retries are worth nobody's wait."""
        monitor, self._monitor = self._monitor, None
        if monitor is not None:
            threading.Thread(target=monitor.finish, name="MachineMonitor.abandon", daemon=True).start()
