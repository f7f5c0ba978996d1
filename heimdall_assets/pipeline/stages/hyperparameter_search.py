"""hyperparameter_search: trials of a search laid open as one result, and the settings that it found read back.

Belongs here: the search planned, worked on by any number of workers, and ended; its manifest. Does not belong here: a
trial (``search_trials``), the study (``searching.trial_book``).

The stage's parents are the training and the validation split: the test split is not among them.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from heimdall_assets.counts import say_count
from heimdall_assets.errors import InvalidInput, NotFound, Refused
from heimdall_assets.evaluation.figures.search_figures import plot_search
from heimdall_assets.kinds import HYPERPARAMETER_SEARCH, TRAIN_SPLIT, TRAINED_CHECKPOINT, VAL_SPLIT
from heimdall_assets.manifests import (
    RESULTS,
    Manifest,
    compute_json_digest,
    decode_canonical_json,
    encode_canonical_json,
)
from heimdall_assets.media_types import JSON_MEDIA_TYPE, SVG_MEDIA_TYPE
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.pipeline.results import Computed, Result, find_or_compute, name_result, read_result
from heimdall_assets.pipeline.searching.findings import compute_importance, describe_best, tabulate_trials
from heimdall_assets.pipeline.searching.trial_book import count_states, describe_state, find_best, open_book
from heimdall_assets.pipeline.stages.search_trials import SearchOrder, TrialReport, TrialRunner
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.interface import ObjectStore
from heimdall_assets.stores.objects.tables import artifact_of_table
from heimdall_assets.stores.studies import Studies

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

BEST, TRIALS, IMPORTANCE = "best.json", "trials", "importance.json"


def name_search(order: SearchOrder) -> str:
    """Return the name of a search's study: the cache key of its result."""
    return name_result(HYPERPARAMETER_SEARCH, _list_parents(order), order.specs, _state_code()).removeprefix(RESULTS)


def find_search(objects: ObjectStore, order: SearchOrder) -> Manifest | None:
    """Return the result of the same search on the same splits; None: it was not made yet."""
    return read_result(objects, f"{RESULTS}{name_search(order)}")


def plan_search(stores: Stores, order: SearchOrder, is_at_work: Callable[[str], bool]) -> int:
    """Enter the trials of a search that are not entered yet; return how many have not ended.

    Args:
        stores: the opened stores.
        order: what is searched.
        is_at_work: whether a worker that took a trial, and did not end it, may still be at it.

    Raises:
        Refused: another run works on this search now.
        StorageError: the study cannot be opened.
    """
    with open_book(open_studies(stores), name_search(order), order.search) as book:
        book.enter_all()
        book.free(lambda owner: not is_at_work(owner))
        counts = count_states(book.list_trials())
        if counts["under way"]:
            raise Refused(
                f"search {book.name[:12]}: found {say_count(counts['under way'], 'trial')} under way in another run, "
                "expected one run at a time; stop it, or wait for its end"
            )
        return counts["waiting"]


def work_on_search(stores: Stores, order: SearchOrder, owner: str, on_end: TrialReport) -> int:
    """Fit trials of a planned search until none waits; return how many ended here.

    Args:
        stores: the opened stores.
        order: what is searched.
        owner: this worker; what it left when it was killed it takes up again.
        on_end: called with each trial that has ended.

    Raises:
        InvalidSetting: pretrained weights that are asked for contradict the model.
        StorageError: study or objects are away; trials under way wait for the next start.
    """
    studies, name = open_studies(stores), name_search(order)
    with open_book(studies, name, order.search) as book:
        book.free(lambda other: other == owner)
        return TrialRunner(stores.objects, studies.locate_work(name), order).run_all(book, owner, on_end)


def finish_search(stores: Stores, order: SearchOrder) -> Result:
    """Return the result of a search whose trials have all ended, found or computed.

    Raises:
        Refused: a trial has not ended.
        InvalidInput: no trial came to its end.
    """
    objects, name = stores.objects, name_search(order)

    def compute() -> Computed:
        with open_book(open_studies(stores), name, order.search) as book:
            trials, study = book.list_trials(), book.load()
            counts = count_states(trials)
            left = book.num_trials - sum(counts[state] for state in ("complete", "pruned", "failed"))
            if left:
                raise Refused(
                    f"search {name[:12]}: {say_count(left, 'trial')} of {book.num_trials} not ended, expected none; "
                    "the next run with the same settings goes on with them"
                )
            best = find_best(trials)
            if best is None:
                raise InvalidInput(f"search {name[:12]}: no trial came to its end; {_say_why(trials)}")
            importance = compute_importance(study, trials, order.search)
        return _store(objects, order, trials, best, importance), {
            "num_trials": len(trials),
            **{f"num_{state}": counts[state] for state in ("complete", "pruned", "failed")},
            "objective": order.search.objective,
            "best_trial": best.number,
            "best_value": best.value,
            "best": describe_best(best),
        }

    return find_or_compute(objects, HYPERPARAMETER_SEARCH, _list_parents(order), order.specs, compute, _state_code())


def _store(
    objects: ObjectStore,
    order: SearchOrder,
    trials: "list[FrozenTrial]",
    best: "FrozenTrial",
    importance: dict[str, float],
) -> dict[str, Any]:
    found = {"trial": best.number, "objective": order.search.objective, "value": best.value, "settings": best.params}
    artifacts = {
        TRIALS: artifact_of_table(objects, tabulate_trials(trials)),
        BEST: objects.put_bytes(encode_canonical_json(found), JSON_MEDIA_TYPE),
        IMPORTANCE: objects.put_bytes(encode_canonical_json(importance), JSON_MEDIA_TYPE),
    }
    complete = [
        (trial.params, trial.value)
        for trial in trials
        if describe_state(trial) == "complete" and trial.value is not None
    ]
    figures = plot_search(complete, importance, order.search)
    drawn = objects.put_all(list(figures.values()), SVG_MEDIA_TYPE)
    return artifacts | {f"{name}.svg": artifact for name, artifact in zip(figures, drawn, strict=True)}


def _say_why(trials: "list[FrozenTrial]") -> str:
    reasons = [str(trial.user_attrs["reason"]) for trial in trials if "reason" in trial.user_attrs]
    return reasons[0] if reasons else "all were stopped early"


def _list_parents(order: SearchOrder) -> dict[str, str]:
    return {TRAIN_SPLIT: order.train_split.digest, VAL_SPLIT: order.val_split.digest}


def _state_code() -> dict[str, str]:
    """Return what the code of a fit adds to the cache key: where the same fit gives another model, so does a search."""
    return {"code_of_a_fit": compute_json_digest({TRAINED_CHECKPOINT: STAGES[TRAINED_CHECKPOINT].code_version})}


def list_trials(stores: Stores, order: SearchOrder) -> "list[FrozenTrial]":
    """Return the trials of a search as its study holds them now, by number.

    Raises:
        StorageError: the study cannot be opened.
    """
    with open_book(open_studies(stores), name_search(order), order.search) as book:
        return book.list_trials()


def read_importance(objects: ObjectStore, search: Manifest) -> dict[str, float]:
    """Return setting -> its share of the differences between trials; none where it cannot be told."""
    found: dict[str, float] = decode_canonical_json(objects.read_bytes(search.artifacts[IMPORTANCE].digest))
    return found


def open_studies(stores: Stores) -> Studies:
    """Return the studies of a home."""
    return Studies(stores.releases.database, stores.scratch)


def read_found(objects: ObjectStore, digest: str) -> dict[str, Any]:
    """Return what a search found: ``settings`` by name, ``trial``, ``objective`` and ``value``.

    Raises:
        NotFound: there is no such result, or it is none of a search.
        CorruptObject: it is damaged.
    """
    manifest = read_search(objects, digest)
    found: dict[str, Any] = decode_canonical_json(objects.read_bytes(manifest.artifacts[BEST].digest))
    return found


def read_search(objects: ObjectStore, digest: str) -> Manifest:
    """Return the manifest of a search.

    Raises:
        NotFound: there is no such result, or it is none of a search.
        CorruptObject: it is damaged.
    """
    try:
        manifest = Manifest.decode(objects.read_bytes(digest))
    except ValueError:
        manifest = None
    if manifest is None or manifest.kind != HYPERPARAMETER_SEARCH:
        raise NotFound(f"search {digest}: found {manifest.kind if manifest else 'no manifest'}, expected one")
    return manifest
