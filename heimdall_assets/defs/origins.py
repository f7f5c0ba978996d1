"""Origins: who or what asked for a run, and why, as its tags say; it stands in the facts of all that the run computes.

Belongs here: the tags of person, reason, profile, intent and release, for those who ask and those who tell. Does not
belong here: what is kept of them (``stores.computing``).
"""

from dataclasses import replace

import dagster as dg

from heimdall_assets.profiles.reading import Read
from heimdall_assets.stores.computing import Origin, name_user
from heimdall_assets.stores.home import Stores

PERSON_TAG = "heimdall/person"
REASON_TAG = "heimdall/reason"
PROFILE_TAG = "heimdall/profile"
"""The profile that a run's settings started from; what they are stands in its configuration and its results."""
INTENT_TAG = "heimdall/intent"
"""What the run's training is for (``stores.experiment_entries.Intent``); MLflow's run is named after it."""
MLFLOW_TAG, WANDB_TAG = "heimdall/mlflow", "heimdall/wandb"
"""Who is told of a run's training, in the words of ``profiles.schema.Tracking``; not there: MLflow alone."""
RESUMES_TAG = "heimdall/resumes"
"""Digest of the checkpoint whose training this run goes on with, from its last state; it decides no setting."""
RELEASE_TAG = "heimdall/release"
"""Of the run whose model was released, or that found its release again: the version."""

PAGE = "Dagster's page"


def tag_origin(reason: str | None = None) -> dict[str, str]:
    """Return the tags of a run that whoever uses this computer asks for."""
    return {PERSON_TAG: name_user(), **tag_reason(reason)}


def tag_intent(intent: str) -> dict[str, str]:
    """Return the tag of what a run's training is for."""
    return {INTENT_TAG: intent}


def tag_resumed(resumes: str | None) -> dict[str, str]:
    """Return the tag of the checkpoint whose training goes on; none: none does."""
    return {RESUMES_TAG: resumes} if resumes else {}


def tag_reason(reason: str | None) -> dict[str, str]:
    """Return the tag of a reason; empty: none was given."""
    return {REASON_TAG: reason} if reason else {}


def tag_profile(read: Read | None) -> dict[str, str]:
    """Return the tags of a run that starts from a profile; none: it starts from none."""
    if read is None:
        return {}
    tracking = read.profile.tracking
    return {
        PROFILE_TAG: read.title,
        MLFLOW_TAG: "on" if tracking.mlflow else "off",
        WANDB_TAG: tracking.wandb,
    }


def tells_mlflow(run: dg.DagsterRun) -> bool:
    """Return whether MLflow is to hear of a run's training."""
    return run.tags.get(MLFLOW_TAG) != "off"


def tag_release(version: str) -> dict[str, str]:
    """Return the tag of the release that a run made or found again."""
    return {RELEASE_TAG: version}


def describe_origin(run: dg.DagsterRun | None) -> Origin:
    """Return who or what asked for a run: a person, a sensor or a schedule by name, else the page."""
    if run is None:
        return Origin(name_user(), is_person=True)
    named = {what: run.tags.get(f"dagster/{what}_name") for what in ("sensor", "schedule")}
    automatic = next((f"{what} {name}" for what, name in named.items() if name), PAGE)
    person = run.tags.get(PERSON_TAG)
    reason, profile = run.tags.get(REASON_TAG), run.tags.get(PROFILE_TAG)
    return Origin(person or automatic, reason, run.run_id, is_person=person is not None, profile=profile)


def hide_person(origin: Origin, stores: Stores) -> Origin:
    """Return an origin that may be kept for ever: a person by pseudonym."""
    return replace(origin, started_by=stores.releases.name_person(origin.started_by)) if origin.is_person else origin
