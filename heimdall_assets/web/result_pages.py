"""Result pages: evaluations and model cards as pages, and their figures one by one, for whoever has the address.

Belongs here: which stored result an address means. It is the version of a published release or the digest of a stored
manifest, and never a file's path. The pictures are made when asked for or were stored with the evaluation, so that
Dagster's events hold an address of some eighty characters instead of each picture.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

from heimdall_assets.errors import HeimdallError, NotFound
from heimdall_assets.kinds import EVALUATION_METRICS, HYPERPARAMETER_SEARCH, TRAINED_CHECKPOINT
from heimdall_assets.learning.task import RATE_SEARCH
from heimdall_assets.lineage.pages.served import list_links
from heimdall_assets.manifests import Manifest
from heimdall_assets.media_types import SVG_MEDIA_TYPE
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.pipeline.stages.trained_checkpoint import read_training
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.folder import ObjectStore

HTML = "text/html"
LOSSES, RATES = "losses", "rates"
_STORED = re.compile(r"/(results|trainings|searches)/([0-9a-f]{64})(?:/([a-z_]{1,40})\.svg)?")
_ROOMS = {"results": EVALUATION_METRICS, "trainings": TRAINED_CHECKPOINT, "searches": HYPERPARAMETER_SEARCH}
DRAWING = Lock()  # matplotlib keeps its settings for the whole process


@dataclass(frozen=True)
class Page:
    """What answers a request: the kind of its bytes, and they."""

    kind: str
    data: bytes


def find_stored(objects: ObjectStore, path: str) -> Page | None:
    """Return the page or picture of a stored result; None: ``path`` is the address of none.

    Raises:
        NotFound: there is no such result, or it has no such picture.
    """
    found = _STORED.fullmatch(path)
    if found is None:
        return None
    room, digest, figure = found.groups()
    manifest = _read(objects, digest, _ROOMS[room])
    if figure is None:
        if manifest.kind != EVALUATION_METRICS:
            return None
        title = f"evaluation {digest[:12]}"
        return Page(HTML, _render_evaluation(objects, manifest, title, {"All releases": "/"}))
    return Page(SVG_MEDIA_TYPE, _find_figure(objects, manifest, figure))


def render_release(stores: Stores, record: Mapping[str, Any], part: str) -> Page:
    """Return the page ``results`` or ``card`` of a published release."""
    version = str(record["version"])
    links = {text: address for text, address in list_links(version, part).items() if address}
    if part == "card":
        from heimdall_assets.evaluation.figures.results_page import render_card_page

        card = stores.releases.read_file(version, "README.md").decode()
        return Page(HTML, render_card_page(version, card, links).encode())
    evaluation = _read(stores.objects, str(record["evaluation"]), EVALUATION_METRICS)
    return Page(HTML, _render_evaluation(stores.objects, evaluation, version, links))


def _read(objects: ObjectStore, digest: str, kind: str) -> Manifest:
    try:
        manifest = Manifest.decode(objects.read_bytes(digest))
    except (HeimdallError, ValueError) as error:
        raise NotFound(f"results {digest[:12]}: found no such {kind}, expected a stored one") from error
    if manifest.kind != kind:
        raise NotFound(f"results {digest[:12]}: found {manifest.kind}, expected {kind}")
    return manifest


def _find_figure(objects: ObjectStore, manifest: Manifest, name: str) -> bytes:
    drawn = _draw_training(objects, manifest) if manifest.kind == TRAINED_CHECKPOINT else {}
    if name in drawn:
        return drawn[name]
    artifact = manifest.artifacts.get(f"{name}.svg")
    if artifact is None or artifact.media_type != SVG_MEDIA_TYPE:
        raise NotFound(f"figure {name}: found none of {manifest.kind}, expected one that was drawn")
    return objects.read_bytes(artifact.digest)


def _render_evaluation(objects: ObjectStore, manifest: Manifest, title: str, links: Mapping[str, str]) -> bytes:
    from heimdall_assets.evaluation.figures.results_page import render_results
    from heimdall_assets.pipeline.stages.evaluation_metrics import load_metrics

    figures = {
        name.removesuffix(".svg"): objects.read_bytes(artifact.digest)
        for name, artifact in manifest.artifacts.items()
        if artifact.media_type == SVG_MEDIA_TYPE
    }
    figures |= _draw_training(objects, read_parent(objects, manifest, TRAINED_CHECKPOINT))
    return render_results(title, load_metrics(objects, manifest), figures, links).encode()


def _draw_training(objects: ObjectStore, checkpoint: Manifest) -> dict[str, bytes]:
    """Return the losses over epochs, and what a range test of the learning rate saw where there was one."""
    from heimdall_assets.evaluation.figures.loss_curve import plot_losses
    from heimdall_assets.evaluation.figures.range_curve import plot_range

    history, facts = read_training(objects, checkpoint)
    with DRAWING:
        drawn = {LOSSES: plot_losses(history, facts)}
        return drawn | ({RATES: plot_range(facts[RATE_SEARCH])} if RATE_SEARCH in facts else {})
