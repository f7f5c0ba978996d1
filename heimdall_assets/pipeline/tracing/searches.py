"""Past searches: those whose result is at rest, those that have not ended, and the settings that one found.

Belongs here: finding a search by what people call it, its best settings as specs. Does not belong here: making one
(``stages.hyperparameter_search``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from heimdall_assets.errors import NotFound
from heimdall_assets.kinds import HYPERPARAMETER_SEARCH
from heimdall_assets.manifests import RESULTS, Manifest
from heimdall_assets.pipeline.searching.trial_book import count_states
from heimdall_assets.pipeline.stages.hyperparameter_search import open_studies, read_found, read_search
from heimdall_assets.pipeline.tracing.indexing import open_whole_index
from heimdall_assets.specs import AugmentationSpec, ModelSpec, Spec, TrainingSpec
from heimdall_assets.stores.computing import read_facts
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.interface import ObjectStore

LATEST = "latest"
FEWEST_DIGITS = 6
"""Of a digest by which a search is called."""

SEARCHED_SPECS: tuple[type[Spec], ...] = (ModelSpec, TrainingSpec, AugmentationSpec)


@dataclass(frozen=True)
class PastSearch:
    """A search whose result is at rest.

    Attributes:
        manifest: of the result.
        made_at: when, ISO 8601; empty: nobody kept it.
    """

    manifest: Manifest
    made_at: str

    def describe(self) -> dict[str, Any]:
        """Return what is told of it in a list, JSON values."""
        return {"search": self.manifest.digest, "made_at": self.made_at, **self.manifest.summary}


def list_searches(stores: Stores) -> list[PastSearch]:
    """Return the searches whose results are at rest, the oldest first."""
    with open_whole_index(stores) as whole:
        digests = whole.edges.list_of_kind(HYPERPARAMETER_SEARCH)
    found = []
    for digest in sorted(stores.objects.find_present(digests)):
        facts = read_facts(stores.objects, digest) or {}
        found.append(PastSearch(read_search(stores.objects, digest), str(facts.get("started_at", ""))))
    return sorted(found, key=lambda one: (one.made_at, one.manifest.digest))


def list_unfinished(stores: Stores) -> list[dict[str, Any]]:
    """Return the searches that began and have no result: ``study``, and how many trials are in which state.

    Raises:
        StorageError: their studies cannot be opened.
    """
    import optuna

    studies, found = open_studies(stores), list[dict[str, Any]]()
    for name in studies.list_names():
        if stores.objects.read_reference(f"{RESULTS}{name}") is None:
            with studies.opened(name) as storage:
                trials = optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
            found.append({"study": name, "num_trials": len(trials), **count_states(trials)})
    return found


def find_past(stores: Stores, named: str) -> PastSearch:
    """Return the search that ``named`` means: ``latest``, its digest, or six or more first digits of that.

    Raises:
        NotFound: it means none, or several.
    """
    known = list_searches(stores)
    if not known:
        raise NotFound(f"search {named}: found no search in this home, expected one that has ended (heimdall search)")
    if named == LATEST:
        return known[-1]
    meant = [one for one in known if one.manifest.digest.startswith(named.lower().removeprefix("sha256:"))]
    if len(named) < FEWEST_DIGITS or len(meant) != 1:
        there = ", ".join(one.manifest.digest[:12] for one in known[-5:])
        raise NotFound(f"search {named:.80}: found {len(meant)}, expected {LATEST} or first digits of one of {there}")
    return meant[0]


def take_settings(objects: ObjectStore, search: Manifest, chosen: Sequence[Spec]) -> tuple[list[Spec], list[str]]:
    """Return chosen specs with those of a search's best trial below them, and a line for each found value not taken.

    All settings of the trial are taken, for its values were found beside those; its epochs are those of a training.

    Args:
        objects: where the search rests.
        search: its manifest.
        chosen: specs whose set fields win.
    """
    found = read_found(objects, search.digest)["settings"]
    merged: list[Spec] = [spec for spec in chosen if spec.pure_class() not in SEARCHED_SPECS]
    told: list[str] = []
    for cls in SEARCHED_SPECS:
        own = {name.partition(".")[2]: value for name, value in found.items() if name.startswith(f"{cls.__name__}.")}
        wanted = next((spec for spec in chosen if spec.pure_class() is cls), None)
        said = {} if wanted is None else {name: getattr(wanted, name) for name in wanted.model_fields_set}
        told += [
            f"{cls.__name__}.{name}: taken as {said[name]!r}, the search found {value!r}"
            for name, value in own.items()
            if name in said and said[name] != value
        ]
        mark = {"found_by": search.digest} if cls is TrainingSpec else {}
        merged.append(cls.model_validate({**search.specs[cls.__name__], **own, **said, **mark}))
    return merged, told


def list_trial_rows(objects: ObjectStore, search: Manifest) -> list[dict[str, Any]]:
    """Return the trials of a search, by number, as JSON values."""
    import json

    from heimdall_assets.stores.objects.tables import list_records, load_table, nullable

    rows = list_records(load_table(objects, search.artifacts["trials"]))
    plain = [{name: nullable(value) for name, value in row.items()} for row in rows]
    return [{**row, "params": json.loads(row["params"]), "val_losses": json.loads(row["val_losses"])} for row in plain]
