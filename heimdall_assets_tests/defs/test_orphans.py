"""Orphans: a run whose process was killed is told as failed, and no other."""

import os
import socket
import subprocess
import sys
import threading
import time

import dagster as dg
import pytest

from heimdall_assets.defs.orphans import (
    HOST_TAG,
    PROCESS_TAG,
    START_TAG,
    describe_start,
    end_orphan,
    free_left_slots,
    is_alive,
    list_orphans,
    tag_process,
)
from heimdall_assets_tests.serving import wait_for

PROGRAM = """
import sys, time
import dagster as dg
from heimdall_assets.defs.orphans import tag_process

@dg.op(pool="gpu")
def wait():
    time.sleep(600)

@dg.job(name="release")
def waiting():
    wait()

with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    waiting.execute_in_process(instance=instance, tags=tag_process())
"""


def test_a_killed_run_is_told_as_failed_and_a_living_one_is_left_alone(tmp_path):
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        instance.event_log_storage.set_concurrency_slots("gpu", 1)
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
            assert list_orphans(instance) == []
        finally:
            process.kill()
            process.wait()
        (run,) = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.STARTED  # nobody noticed
        assert list_holders(instance) == {run.run_id}
        assert list_orphans(instance, mine=run.run_id) == []
        (orphan,) = list_orphans(instance)
        line = end_orphan(instance, orphan)
        assert f"run {run.run_id}: process {process.pid} of this run is gone" in line
        (run,) = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.FAILURE
        assert list_holders(instance) == set()
        assert list_orphans(instance) == []


def test_a_living_run_is_left_alone_though_the_clock_was_set(tmp_path):
    """Set forward an hour while it ran, the clock says that its process began long after the run did."""
    with dg.instance_for_test() as instance:
        living = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        began = {PROCESS_TAG: f"{living.pid} {time.time() - 3600:.3f}", START_TAG: describe_start(living.pid)}
        job = dg.job(name="release")(lambda: None)
        run = instance.create_run_for_job(job, tags={**tag_process(), **began})
        try:
            assert list_orphans(instance) == []
            # The same number, once it belongs to another process.
            pid, ticks, boot = began[START_TAG].split()
            instance.add_run_tags(run.run_id, {START_TAG: f"{pid} {int(ticks) - 1} {boot}"})
            assert [orphan.run_id for orphan in list_orphans(instance)] == [run.run_id]
            instance.add_run_tags(run.run_id, {START_TAG: began[START_TAG]})
            assert list_orphans(instance) == []
        finally:
            living.kill()
            living.wait()
        assert [orphan.run_id for orphan in list_orphans(instance)] == [run.run_id]


def list_holders(instance):
    return {slot.run_id for slot in instance.event_log_storage.get_concurrency_info("gpu").claimed_slots}


def test_a_run_killed_before_it_began_is_an_orphan_too():
    with dg.instance_for_test() as instance:
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        tags = {**tag_process(), PROCESS_TAG: f"{dead.pid} {time.time()}"}
        run = instance.create_run_for_job(dg.job(name="release")(lambda: None), tags=tags)
        mine = instance.create_run_for_job(dg.job(name="train")(lambda: None), tags=tag_process())
        assert [orphan.run_id for orphan in list_orphans(instance)] == [run.run_id]
        end_orphan(instance, run)
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
        assert instance.get_run_by_id(mine.run_id).status == dg.DagsterRunStatus.NOT_STARTED


def test_a_run_that_the_page_repeats_is_judged_by_its_own_process():
    """Dagster gives it the tags of the one it repeats, which names a process that is gone."""
    with dg.instance_for_test() as instance:
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        job = dg.job(name="release")(lambda: None)
        tags = {**tag_process(), PROCESS_TAG: f"{dead.pid} {time.time()}"}
        first = instance.create_run_for_job(job, tags=tags)
        again = instance.create_run_for_job(job, tags=tags, parent_run_id=first.run_id, root_run_id=first.run_id)
        assert [run.run_id for run in list_orphans(instance)] == [first.run_id]
        instance.report_engine_event("Executing steps in process", again, dg_process(dead.pid))
        assert {run.run_id for run in list_orphans(instance)} == {first.run_id, again.run_id}


def test_a_place_that_an_ended_run_still_holds_is_freed():
    """As a kill between the end of a run and the freeing of its place leaves it; other machines' are left alone."""
    with dg.instance_for_test() as instance:
        storage, ended = instance.event_log_storage, dg.DagsterRunStatus.FAILURE
        storage.set_concurrency_slots("gpu", 3)
        job = dg.job(name="release")(lambda: None)
        mine = instance.create_run_for_job(job, tags=tag_process(), status=ended)
        foreign = instance.create_run_for_job(job, tags={HOST_TAG: "another machine"}, status=ended)
        for run_id in (mine.run_id, foreign.run_id, "of no run"):
            storage.claim_concurrency_slot("gpu", run_id, "trained_checkpoint")
        lines = free_left_slots(instance)
        assert list_holders(instance) == {foreign.run_id}
        assert sorted(lines) == sorted(
            f"pool gpu: freed the place of run {name}, which has ended" for name in (mine.run_id, "of no run")
        )
        assert free_left_slots(instance) == []


def test_steps_that_outlive_their_killed_run_are_waited_for():
    with dg.instance_for_test() as instance:
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1.5)"])
        tags = {**tag_process(), PROCESS_TAG: f"{dead.pid} {time.time()}"}
        run = instance.create_run_for_job(dg.job(name="release")(lambda: None), tags=tags)
        instance.report_engine_event("a step's process", run, dg_process(worker.pid))
        reaper = threading.Thread(target=worker.wait)
        reaper.start()
        end_orphan(instance, run)
        assert not is_alive(worker.pid, time.time())
        reaper.join()


@pytest.mark.parametrize("tags", [{}, {HOST_TAG: "another machine"}])
def test_a_run_of_another_machine_is_not_judged(tags):
    with dg.instance_for_test() as instance:
        run = instance.create_run_for_job(dg.job(name="release")(lambda: None), tags=tags)
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        instance.report_engine_event("Executing steps in process", run, dg_process(dead.pid))
        start = dg.DagsterEvent(event_type_value="PIPELINE_START", job_name="release", message="started")
        instance.report_dagster_event(start, run.run_id)
        assert list_orphans(instance) == []
        instance.add_run_tags(run.run_id, {HOST_TAG: socket.gethostname()})
        assert [orphan.run_id for orphan in list_orphans(instance)] == [run.run_id]


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
