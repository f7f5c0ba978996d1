"""Run pages: trainings as they go and as they went, for whoever has the address.

Belongs here: which training an address means. Does not belong here: layout (``evaluation.figures.training_page``),
where trainings are found (``pipeline.runs``). A path is never a file's: it is the id of a training or nothing.
"""

import re

from heimdall_assets.errors import NotFound
from heimdall_assets.media_types import SVG_MEDIA_TYPE
from heimdall_assets.pipeline.runs import (
    TrainingRun,
    list_trainings,
    read_training_tables,
    summarize_training,
)
from heimdall_assets.specs import AssessmentSpec
from heimdall_assets.stores.home import Stores
from heimdall_assets.web.result_pages import DRAWING, HTML, Page

_RUN = re.compile(r"/runs(?:/([0-9a-f]{12})(/losses\.svg)?)?")
MAX_LISTED = 200


def find_run_page(stores: Stores, path: str) -> Page | None:
    """Return the page of a training, its picture, or the list of trainings; None: ``path`` is the address of none.

    Raises:
        NotFound: there is no such training.
    """
    found = _RUN.fullmatch(path)
    if found is None:
        return None
    run_id, picture = found.groups()
    if run_id is None:
        return Page(HTML, _render_list(stores).encode())
    from heimdall_assets.evaluation.assessment import assess_training
    from heimdall_assets.evaluation.figures.training_page import draw_losses, render_training

    run = _find(stores, run_id)
    tables = read_training_tables(stores, run)
    with DRAWING:
        if picture is not None:
            return Page(SVG_MEDIA_TYPE, draw_losses(run.told, tables))
        judged = assess_training(tables, run.told, AssessmentSpec())
        links = {"All trainings": "/runs", **{version: f"/{version}" for version in run.releases}}
        return Page(HTML, render_training(run.told, tables, judged, links).encode())


def _find(stores: Stores, run_id: str) -> TrainingRun:
    found = [run for run in list_trainings(stores) if run.id == run_id]
    if not found:
        raise NotFound(f"training {run_id}: found no such one, expected the id of one that /runs lists")
    return found[0]


def _render_list(stores: Stores) -> str:
    from heimdall_assets.evaluation.figures.training_page import render_trainings

    rows = []
    for run in list_trainings(stores)[:MAX_LISTED]:
        told = run.told
        summary = summarize_training(told, read_training_tables(stores, run))
        kind = told.get("settings", {}).get("ModelSpec", {}).get("kind")
        named = {"id": run.id, "started": told.get("started"), "status": told["status"], "kind": kind}
        rows.append({**named, **summary, "releases": run.releases})
    return render_trainings(rows, {"All releases": "/"})
