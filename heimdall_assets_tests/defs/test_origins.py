"""Who asked for a run, as its tags say, and as it stands in the facts of what the run computes."""

import getpass
from contextlib import nullcontext
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.defs.origins import PAGE, describe_origin, tag_intent, tag_origin, tag_reason
from heimdall_assets.defs.resources import build_stores
from heimdall_assets.defs.tracking.names import read_intent
from heimdall_assets.stores.computing import Computation, Origin
from heimdall_assets.stores.experiment_entries import Intent
from heimdall_assets_tests.homes import make_places


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
    is_person = "heimdall/person" in tags
    assert describe_origin(make_run(tags)) == Origin(started_by, reason, "0" * 32, is_person)


def test_a_reason_is_evidence_and_stays_whole() -> None:
    assert tag_reason("x" * 1000) == {"heimdall/reason": "x" * 1000}


@pytest.mark.parametrize("intent", [intent.value for intent in Intent])
def test_what_a_run_is_for_stands_in_its_tag_and_changes_no_origin(intent: str) -> None:
    tags = {**tag_origin("monthly"), **tag_intent(intent)}
    assert tags["heimdall/intent"] == intent
    assert read_intent(make_run(tags)) == intent
    assert describe_origin(make_run(tags)) == describe_origin(make_run(tag_origin("monthly")))


def test_a_run_that_nobody_said_anything_of_may_become_champion() -> None:
    assert read_intent(make_run(tag_origin())) == "production-candidate"


def test_the_command_takes_no_other_intent() -> None:
    done = CliRunner().invoke(main, ["train", "--intent", "fun"])
    assert done.exit_code == 2
    assert "'fun' is not one of 'baseline', 'ablation', 'hyperparameter-search', 'production-candidate'" in done.output


def test_what_a_step_computes_knows_its_run_and_a_person_by_pseudonym(tmp_path: Path) -> None:
    told: dict[str, object] = {}
    stores = make_places(tmp_path).open_stores()

    @dg.op(required_resource_keys={"stores"})
    def compute() -> None:
        told.update(Computation().describe())

    @dg.job(resource_defs={"stores": build_stores(lambda: stores, "a home", nullcontext)})
    def job() -> None:
        compute()

    result = job.execute_in_process(tags={"heimdall/person": "rita", **tag_reason("a new receiver")})
    assert (told["reason"], told["run_id"]) == ("a new receiver", result.run_id)
    assert stores.read_names() == {told["started_by"]: "rita"}
    assert Computation().describe()["started_by"] == getpass.getuser()
