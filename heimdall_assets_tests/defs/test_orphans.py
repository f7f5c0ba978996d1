"""Orphans: a run whose process was killed is told as failed, and no other."""

import os
import subprocess
import sys
import time

import dagster as dg
import pytest

from heimdall_assets.defs.orphans import HOST_TAG, fail_orphans, is_alive, tag_host
from heimdall_assets_tests.serving import wait_for

PROGRAM = """
import sys, time
import dagster as dg
from heimdall_assets.defs.orphans import tag_host

@dg.op
def wait():
    time.sleep(600)

@dg.job(name="release")
def waiting():
    wait()

with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    waiting.execute_in_process(instance=instance, tags=tag_host())
"""


def test_a_killed_run_is_told_as_failed_and_a_living_one_is_left_alone(tmp_path):
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            steps = dg.DagsterEventType.STEP_START
            wait_for(
                lambda: any(instance.all_logs(run.run_id, of_type=steps) for run in instance.get_runs()),
                300,
                "the run's step to start",
            )
            assert fail_orphans(instance) == []
        finally:
            process.kill()
            process.wait()
        (run,) = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.STARTED  # nobody noticed
        assert fail_orphans(instance) == [run.run_id]
        (run,) = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.FAILURE
        assert fail_orphans(instance) == []


@pytest.mark.parametrize("tags", [{}, {HOST_TAG: "another machine"}])
def test_a_run_of_another_machine_is_not_judged(tags):
    with dg.instance_for_test() as instance:
        run = instance.create_run_for_job(dg.job(name="release")(lambda: None), tags=tags)
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        instance.report_engine_event("Executing steps in process", run, dg_process(dead.pid))
        start = dg.DagsterEvent(event_type_value="PIPELINE_START", job_name="release", message="started")
        instance.report_dagster_event(start, run.run_id)
        assert fail_orphans(instance) == []
        instance.add_run_tags(run.run_id, tag_host())
        assert fail_orphans(instance) == [run.run_id]


def dg_process(pid: int):
    """What Dagster's own events say of a process."""
    from dagster._core.events import EngineEventData

    return EngineEventData(metadata={"pid": dg.MetadataValue.text(str(pid))})


def test_a_number_that_was_given_again_is_another_process():
    assert is_alive(os.getpid(), time.time())
    assert not is_alive(os.getpid(), 1_000_000.0)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    assert not is_alive(dead.pid, time.time())
    assert not is_alive(1, 0.0)  # of somebody else, younger than what it is asked for
