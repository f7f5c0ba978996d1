"""Orphans: runs that Dagster believes to be under way and whose process is gone.

Dagster's own server notices a run's process that dies before it. Where both died together (a power cut, a killed
``heimdall ui``), or where the run was ``heimdall train``, nobody does: the run would stay "started", and everything
that waits for it would wait for ever.
"""

import json
import os
import socket
from contextlib import suppress
from pathlib import Path

import dagster as dg

HOST_TAG = "heimdall/host"
_LAUNCHED_TAG = ".dagster/grpc_info"
_CLOCK_SLACK_S = 2.0


def tag_host() -> dict[str, str]:
    """Return the tag of a run that works in this very process."""
    return {HOST_TAG: socket.gethostname()}


def fail_orphans(instance: dg.DagsterInstance) -> list[str]:
    """Report every started run failed whose process was on this machine and is gone; return their ids."""
    failed = []
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        process = _find_process(instance, run)
        if process is None or is_alive(*process):
            continue
        # A process tells how its run ended before it ends: read again, now that it has.
        now = instance.get_run_by_id(run.run_id)
        if now is not None and now.status == dg.DagsterRunStatus.STARTED:
            instance.report_run_failed(now, f"process {process[0]} of this run is gone without telling how it ended")
            failed.append(run.run_id)
    return failed


def _find_process(instance: dg.DagsterInstance, run: dg.DagsterRun) -> tuple[int, float] | None:
    """Return the process of a run and when it said so; None: it is not one of this machine, or has not spoken yet."""
    launched = json.loads(run.tags.get(_LAUNCHED_TAG, "{}")).get("host")
    if launched not in ("localhost", "127.0.0.1") and run.tags.get(HOST_TAG) != socket.gethostname():
        return None
    for log in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        event = log.dagster_event
        # The first that names a process is the run's own; those of steps come later.
        if event is not None and event.step_key is None and "pid" in event.engine_event_data.metadata:
            return int(str(event.engine_event_data.metadata["pid"].value)), log.timestamp
    return None


def is_alive(pid: int, spoke_s: float) -> bool:
    """Return whether the process that had ``pid`` at ``spoke_s`` (seconds since 1970) still runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's now: judged by its age below
    with suppress(OSError, StopIteration, ValueError):
        # A number is given again, after a restart soon: whoever began after the event is another process.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if fields[0] == "Z":
            return False
        lines = Path("/proc/stat").read_text().splitlines()
        booted_s = next(int(line.split()[1]) for line in lines if line.startswith("btime"))
        return booted_s + int(fields[19]) / os.sysconf("SC_CLK_TCK") <= spoke_s + _CLOCK_SLACK_S
    return True
