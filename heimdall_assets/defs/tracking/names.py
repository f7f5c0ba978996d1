"""What a run is called and found by: intent, author by pseudonym, step, container image; where its page is."""

from typing import Any
from urllib.parse import urlsplit

import dagster as dg

from heimdall_assets.defs.origins import INTENT_TAG
from heimdall_assets.stores.experiment_entries import Intent
from heimdall_assets.stores.experiment_files import EMBEDDED, SERVED

SOURCE_TAGS = {"mlflow.source.name": "heimdall", "mlflow.source.type": "JOB"}
"""In place of the path of this process's program, which MLflow would write down: it may name somebody's home."""

IMAGE_TAG = "heimdall.image"
INTENT = "heimdall.intent"


def read_intent(run: dg.DagsterRun) -> str:
    """Return what a run is for; one that nobody said anything of may become champion, and is called so."""
    return run.tags.get(INTENT_TAG, Intent.PRODUCTION_CANDIDATE.value)


def name_run(run: dg.DagsterRun, params: dict[str, Any]) -> str:
    """Return how people tell runs apart: intent, kind of model, beginning of Dagster's run."""
    kind = params.get("ModelSpec.kind")
    return "/".join(part for part in (read_intent(run), kind, run.run_id[:8]) if part)


def find_page(tracking_uri: str, run_id: str) -> str | None:
    """Return where a browser finds a run; None: the store has no page of its own.

    Examples:
        >>> find_page("https://ada:secret@mlflow.example/base/", "3f2a")
        'https://mlflow.example/base/#/runs/3f2a'
        >>> find_page("sqlite:////srv/mlflow.db", "3f2a") is None
        True
    """
    parts = urlsplit(tracking_uri)
    if parts.scheme not in ("http", "https"):
        return None
    server = parts.netloc.rpartition("@")[2]  # who asks with a password does not hand it on
    return f"{parts.scheme}://{server}{parts.path.rstrip('/')}/#/runs/{run_id}"


def name_store(tracking_uri: str) -> str:
    """Return the options of ``mlflow ui`` for a store without saying where the home lies or what its password is."""
    if tracking_uri.startswith(EMBEDDED):
        home = "${HEIMDALL_HOME:-.heimdall}"
        database = f"--backend-store-uri sqlite:///{home}/{tracking_uri.rpartition('/')[2]}"
        return f"{database} --artifacts-destination {home}/{SERVED}"
    return "--backend-store-uri $MLFLOW_TRACKING_URI"
