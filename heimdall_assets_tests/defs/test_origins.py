"""Who asked for a run, as its tags say, and as it stands in the facts of what the run computes."""

import getpass
from contextlib import nullcontext

import dagster as dg
import pytest

from heimdall_assets.defs.origins import PAGE, describe_origin, tag_origin, tag_reason
from heimdall_assets.defs.resources import build_stores
from heimdall_assets.stores.computing import Computation, Origin


def make_run(tags: dict[str, str]) -> dg.DagsterRun:
    return dg.DagsterRun(job_name="release", run_id="0" * 32, tags=tags)


@pytest.mark.parametrize(
    ("tags", "started_by", "reason"),
    [
        (tag_origin("monthly"), getpass.getuser(), "monthly"),
        (tag_origin(), getpass.getuser(), None),
        ({"dagster/sensor_name": "approvals", **tag_reason("3 added")}, "sensor approvals", "3 added"),
        ({"dagster/schedule_name": "weekly"}, "schedule weekly", None),
        ({"heimdall/person": "rita", "dagster/sensor_name": "approvals"}, "rita", None),
        ({}, PAGE, None),
    ],
)
def test_a_run_tells_who_asked_for_it(tags: dict[str, str], started_by: str, reason: str | None) -> None:
    assert describe_origin(make_run(tags)) == Origin(started_by, reason, "0" * 32)


def test_a_reason_is_evidence_and_stays_whole() -> None:
    assert tag_reason("x" * 1000) == {"heimdall/reason": "x" * 1000}


def test_what_a_step_computes_knows_its_run() -> None:
    told: dict[str, object] = {}

    def open_nothing() -> None:
        return None

    @dg.op(required_resource_keys={"stores"})
    def compute() -> None:
        told.update(Computation().describe())

    @dg.job(resource_defs={"stores": build_stores(open_nothing, "nothing", nullcontext)})
    def job() -> None:
        compute()

    result = job.execute_in_process(tags={"heimdall/person": "rita", **tag_reason("a new receiver")})
    assert (told["started_by"], told["reason"], told["run_id"]) == ("rita", "a new receiver", result.run_id)
    assert Computation().describe()["started_by"] == getpass.getuser()
