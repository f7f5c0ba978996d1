"""A home opened in Python: what it holds, where its sessions are located, which splits its trainings use.

Belongs here: ``open_home`` and ``Home``. Does not belong here: torch (``api.datasets``), training (``api.training``).
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heimdall_assets.errors import NotFound
from heimdall_assets.kinds import SPLIT_KINDS
from heimdall_assets.manifests import Manifest
from heimdall_assets.places import read_places
from heimdall_assets.specs import EvaluationSpec, SimulationSpec

if TYPE_CHECKING:
    from heimdall_assets.stores.home import Stores
    from heimdall_assets.variables import Places


@dataclass(frozen=True)
class Home:
    """An opened home.

    Attributes:
        places: where everything rests.
        stores: the opened stores, for whatever has no method here (``pipeline`` takes them everywhere).
    """

    places: "Places"
    stores: "Stores"

    def sessions(self, campaign: str | None = None) -> list[dict[str, Any]]:
        """Return a row for each session, with its approval and the number of its measurements."""
        return self.stores.measurements.list_sessions(campaign=campaign)

    def models(self) -> list[dict[str, Any]]:
        """Return a row for each released model, oldest first, with its figures and aliases."""
        return self.stores.releases.list_releases()

    def simulate(self, campaign: str = "demo", spec: SimulationSpec | None = None) -> dict[str, Any]:
        """Simulate a campaign of sessions with known truth, approve them, and return what was made.

        Sessions that are there already stay as they are.
        """
        from heimdall_assets.pipeline.intake.simulated import import_simulated

        with self.places.spread_work():
            made = import_simulated(self.stores, spec or SimulationSpec(), campaign, _keep_silent)
        return dict(made)

    def locate(self, session: str) -> dict[str, Any]:
        """Return where the classical estimators put a session (id or name): position, ellipse, what was refused.

        Raises:
            NotFound: there is no such session.
            CannotLocate: no honest position follows from its data.
        """
        from heimdall_assets.pipeline.prediction.stored import locate_stored

        with self.places.spread_work():
            return locate_stored(self.stores, session)

    def predict(self, session: str, model: str = "latest") -> dict[str, Any]:
        """Return where a released model (version, ``latest`` or alias) puts a session.

        Raises:
            NotFound: there is no such session or model.
            CannotLocate: the session holds nothing from which this model can tell a position.
        """
        from heimdall_assets.pipeline.prediction.stored import predict_stored

        with self.places.spread_work():
            return predict_stored(self.stores, model, session)

    def evaluate(
        self, model: str = "latest", campaigns: Sequence[str] = (), spec: EvaluationSpec | None = None
    ) -> dict[str, Any]:
        """Return the figures of a released model on approved sessions that it has not seen.

        Raises:
            NotFound: there is no such model, or no approved session in these campaigns.
            Refused: the model was trained on every one of them.
        """
        from heimdall_assets.pipeline.prediction.stored import evaluate_stored

        with self.places.spread_work():
            return evaluate_stored(self.stores, model, list(campaigns), spec or EvaluationSpec())

    def lineage(self, model: str = "latest") -> str:
        """Return what a released model was made of as text, from its approved sessions on.

        Raises:
            NotFound: there is no such model.
        """
        from heimdall_assets.lineage.tree import render_tree
        from heimdall_assets.pipeline.releases.reading import read_decisions, read_provenance

        provenance = read_provenance(self.stores, self.stores.releases.resolve(model))
        return render_tree(provenance, read_decisions(self.stores, provenance))

    def find_split(self, name: str, model: str | None = None) -> Manifest:
        """Return the manifest of a split, ``train``, ``val`` or ``test``.

        Args:
            name: which of the three.
            model: the released model (version, ``latest`` or alias) whose split it is; None: of the latest decision
                that the graph made in this home.

        Raises:
            NotFound: no such split or model, or the graph has split nothing yet.
        """
        from heimdall_assets.pipeline.results import read_parent
        from heimdall_assets.running.latest import read_latest

        if name not in SPLIT_KINDS:
            raise NotFound(f"split {name!r:.60}: expected one of {', '.join(SPLIT_KINDS)}")
        kind = SPLIT_KINDS[name]
        if model is None:
            return read_latest(self.places, self.stores, kind)
        record = self.stores.releases.find_record(self.stores.releases.resolve(model))
        return read_parent(
            self.stores.objects, Manifest.decode(self.stores.objects.read_bytes(record["manifest"])), kind
        )


def _keep_silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def open_home(path: Path | str | None = None, *, begin: bool = False, environ: Mapping[str, str] | None = None) -> Home:
    """Return an opened home.

    Args:
        path: its folder; None: the one that ``HEIMDALL_HOME`` names, or ``.heimdall`` in the working folder. Whatever
            else the environment names (a database, a bucket of objects) is as it names it.
        begin: make it where nothing is there yet.
        environ: variables in place of those of this process.

    Raises:
        NoHome: nothing is there yet, and it was not to be begun.
        InvalidSetting: a variable of ours that is none, or holds what it cannot.
    """
    given = dict(os.environ if environ is None else environ)
    if path is not None:
        given["HEIMDALL_HOME"] = str(path)
    places = read_places(given)
    return Home(places, places.open_stores(begin=begin))
