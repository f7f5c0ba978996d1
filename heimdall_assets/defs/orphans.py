"""Orphans: runs that Dagster believes to be under way and whose process is gone, and what they still hold.

Dagster's own server notices a run's process that dies before it. Where both died together (a power cut, a killed
``heimdall ui``), or where the run was ``heimdall train``, nobody does: the run would stay "started", its place in the
pool taken, and everything that waits for it would wait for ever.

Belongs here: which runs those are, what ends them. Who asks: ``recovery``.
"""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import dagster as dg

HOST_TAG = "heimdall/host"
PROCESS_TAG = "heimdall/process"
"""Of a run that works in the process that asked for it: its number, and when it said so in seconds since 1970."""

START_TAG = "heimdall/process_start"
"""Of a run that has begun: its process, and what tells that one from a later one of its number (``describe_start``)."""

UNDER_WAY = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
"""A queued run is none of them: it has no process yet, and the daemon starts it."""

WORKER_STOP_S = 60.0
"""A step whose run was killed may take this long to save what it has; then it is killed too."""

_LAUNCHED_TAG = ".dagster/grpc_info"
_CLOCK_SLACK_S = 2.0


def tag_process() -> dict[str, str]:
    """Return the tags of a run that works in this very process; Dagster's daemon does not try it again by itself."""
    told = f"{os.getpid()} {time.time():.3f}"
    return {HOST_TAG: socket.gethostname(), PROCESS_TAG: told, "dagster/max_retries": "0", **tag_start()}


def tag_start() -> dict[str, str]:
    """Return the tag that tells this process from every other one, whatever the clock says meanwhile."""
    start = describe_start(os.getpid())
    return {} if start is None else {START_TAG: start}


def works_where_asked(run: dg.DagsterRun) -> bool:
    """Return whether a run works in the process that asked for it; one that the page repeats has its tags, no more."""
    return PROCESS_TAG in run.tags and run.parent_run_id is None


def is_mine(run: dg.DagsterRun) -> bool:
    """Return whether a run works in this very process."""
    here = run.tags.get(HOST_TAG) == socket.gethostname()
    return here and works_where_asked(run) and int(run.tags[PROCESS_TAG].split()[0]) == os.getpid()


def list_orphans(instance: dg.DagsterInstance, mine: str | None = None) -> list[dg.DagsterRun]:
    """Return every run under way whose process was on this machine and is gone; ``mine`` is none of them."""
    found = []
    for run in instance.get_runs(dg.RunsFilter(statuses=UNDER_WAY)):
        process = None if run.run_id == mine else find_process(instance, run)
        if process is not None and not _still_runs(run, *process):
            # A process tells how its run ended before it ends: read again, now that it has.
            now = instance.get_run_by_id(run.run_id)
            if now is not None and now.status in UNDER_WAY:
                found.append(now)
    return found


def end_orphan(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """End what an orphan left running, free its places in pools, report it failed; return a line that says so."""
    process = find_process(instance, run)
    told = f"process {process[0] if process else '?'} of this run is gone without telling how it ended"
    for pid, spoke_s in _list_workers(instance, run):
        _wait_or_kill(pid, spoke_s)
    instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    instance.report_run_failed(run, told)  # last: whoever is killed before it does all of this again
    return f"run {run.run_id}: {told}; its places are free, the run is reported as failed"


def free_left_slots(instance: dg.DagsterInstance) -> list[str]:
    """Free the places that finished runs of this machine, and runs that are no more, still hold; a line for each."""
    lines = []
    storage = instance.event_log_storage
    for pool in sorted(storage.get_concurrency_keys()):
        info = storage.get_concurrency_info(pool)
        holders = {slot.run_id for slot in info.claimed_slots} | {step.run_id for step in info.pending_steps}
        for run_id in sorted(holders):
            run = instance.get_run_by_id(run_id)
            if run is None or (run.is_finished and run.tags.get(HOST_TAG) == socket.gethostname()):
                storage.free_concurrency_slots_for_run(run_id)
                lines.append(f"pool {pool}: freed the place of run {run_id}, which has ended")
    return lines


def describe_holder(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return which run that is, and where it works as far as that is known."""
    run = instance.get_run_by_id(run_id)
    process = None if run is None else find_process(instance, run)
    return f"run {run_id}" + ("" if process is None else f" (process {process[0]} of this machine)")


def find_process(instance: dg.DagsterInstance, run: dg.DagsterRun) -> tuple[int, float] | None:
    """Return the process of a run and when it said so; None: it is not one of this machine, or has not spoken yet."""
    launched = json.loads(run.tags.get(_LAUNCHED_TAG, "{}")).get("host")
    if launched not in ("localhost", "127.0.0.1") and run.tags.get(HOST_TAG) != socket.gethostname():
        return None
    if works_where_asked(run):
        pid, spoke_s = run.tags[PROCESS_TAG].split()
        return int(pid), float(spoke_s)
    return next((told for step, told in _list_processes(instance, run) if step is None), None)


def _list_workers(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[tuple[int, float]]:
    own = find_process(instance, run)
    return [told for _, told in _list_processes(instance, run) if own is None or told[0] != own[0]]


def _list_processes(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Iterator[tuple[str | None, tuple[int, float]]]:
    """Yield each process of this machine that a run's events name: step, number, when it was told."""
    kinds = {dg.DagsterEventType.ENGINE_EVENT, dg.DagsterEventType.STEP_WORKER_STARTING}
    for log in instance.all_logs(run.run_id, of_type=kinds):
        event = log.dagster_event
        if event is None:
            continue
        metadata = getattr(event.event_specific_data, "metadata", {})
        if "pid" in metadata:
            yield event.step_key, (int(str(metadata["pid"].value)), log.timestamp)


def _wait_or_kill(pid: int, spoke_s: float) -> None:
    deadline = time.monotonic() + WORKER_STOP_S
    while is_alive(pid, spoke_s):
        if time.monotonic() > deadline:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.1)


def _still_runs(run: dg.DagsterRun, pid: int, spoke_s: float) -> bool:
    told = run.tags.get(START_TAG, "")
    if told.split()[:1] == [str(pid)]:
        return describe_start(pid) == told
    return is_alive(pid, spoke_s)


def describe_start(pid: int) -> str | None:
    """Return a process with the ticks and the boot at which it began; None: there is none, or the system does not say.

    A time of the day would not do: whoever sets the clock forward would make every living process a later one.
    """
    with suppress(OSError, ValueError, IndexError):
        began_ticks = _read_start(pid)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return None if began_ticks is None else f"{pid} {began_ticks} {boot}"
    return None


def _read_start(pid: int) -> int | None:
    """Return when a process began, in clock ticks since the boot; None: it has ended and waits for its parent."""
    # proc(5): state and start time, fields 3 and 22; a name before them may hold spaces and brackets
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


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
        began_ticks = _read_start(pid)
        if began_ticks is None:
            return False
        lines = Path("/proc/stat").read_text().splitlines()
        booted_s = next(int(line.split()[1]) for line in lines if line.startswith("btime"))
        return booted_s + began_ticks / os.sysconf("SC_CLK_TCK") <= spoke_s + _CLOCK_SLACK_S
    return True
