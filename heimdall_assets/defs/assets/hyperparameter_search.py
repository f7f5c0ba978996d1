"""``hyperparameter_search``: one step plans, GPU-tagged ones work, one ends it. The test split is no input.

One asset of several steps: how many work at once is the run's choice, and each may be on another machine.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import dagster as dg

from heimdall_assets.counts import say_count
from heimdall_assets.defs.accelerator import GPU_POOL, build_gpu_tags
from heimdall_assets.defs.figures import is_told, show_figures
from heimdall_assets.defs.progress import report_to
from heimdall_assets.defs.resources import LineagePages
from heimdall_assets.defs.results import materialize
from heimdall_assets.defs.settings import SearchConfig
from heimdall_assets.defs.stopping import hold_stop, stop_for_good
from heimdall_assets.defs.tables import render_facts
from heimdall_assets.defs.tracking.resource import ExperimentTracking
from heimdall_assets.defs.tracking.searches import TrackedSearch
from heimdall_assets.errors import HeimdallError, StorageError
from heimdall_assets.kinds import HYPERPARAMETER_SEARCH
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.stores.home import Stores

KEPT = "the next run with the same settings goes on with the same trials"
PLAN, WORK, FINISH = "plan_search", "work_on_search", "finish_search"


def _order(config: SearchConfig, train_split: Manifest, val_split: Manifest) -> Any:
    from heimdall_assets.pipeline.stages.search_trials import SearchOrder

    return SearchOrder(
        train_split,
        val_split,
        config.search.pure(),
        config.model.pure(),
        config.training.pure(),
        config.augmentation.pure(),
        config.machine.pure(),
    )


@dg.op(name=PLAN, out=dg.DynamicOut(dg.Nothing))
def plan(
    context: dg.OpExecutionContext,
    config: SearchConfig,
    train_split: Manifest,
    val_split: Manifest,
    stores: dg.ResourceParam[Stores],
    tracking: dg.ResourceParam[ExperimentTracking],
) -> Iterator[dg.DynamicOutput[Any]]:
    """Enter every trial, and ask for as many workers as there is work for; none where the result is found."""
    from heimdall_assets.pipeline.stages.hyperparameter_search import find_search, name_search, plan_search

    order = _order(config, train_split, val_split)
    if find_search(stores.objects, order) is not None:
        context.log.info("the same search on the same splits was made before")
        return

    def is_at_work(owner: str) -> bool:
        run = context.instance.get_run_by_id(owner.partition("/")[0])
        return run is not None and run.run_id != context.run_id and not run.is_finished

    try:
        waiting = plan_search(stores, order, is_at_work)
    except HeimdallError as error:
        raise dg.Failure(f"{error}", allow_retries=isinstance(error, StorageError)) from error
    specs = order.specs
    params = {f"{type(spec).__name__}.{name}": value for spec in specs for name, value in spec.dump().items()}
    TrackedSearch(context, tracking, name_search(order)).begin(params)
    context.log.info(f"{say_count(waiting, 'trial')} to go")
    for slot in range(min(config.search.num_workers, waiting)):
        yield dg.DynamicOutput(None, mapping_key=str(slot))


@dg.op(
    name=WORK,
    ins={"planned": dg.In(dg.Nothing)},
    out=dg.Out(dg.Nothing),
    pool=GPU_POOL,
    tags=build_gpu_tags(),
    retry_policy=dg.RetryPolicy(max_retries=1),
)
def work(
    context: dg.OpExecutionContext,
    config: SearchConfig,
    train_split: Manifest,
    val_split: Manifest,
    stores: dg.ResourceParam[Stores],
    tracking: dg.ResourceParam[ExperimentTracking],
) -> None:
    """Fit trials until none waits. A trial that was under way when its worker was killed goes on where it was."""
    from heimdall_assets.pipeline.searching.sampling import count_trials
    from heimdall_assets.pipeline.searching.trial_book import describe_state
    from heimdall_assets.pipeline.stages.hyperparameter_search import name_search, work_on_search

    order = _order(config, train_split, val_split)
    tracked = TrackedSearch(context, tracking, name_search(order))
    progress, total = report_to(context, HYPERPARAMETER_SEARCH), count_trials(order.search)

    def on_end(trial: Any) -> None:
        with hold_stop():
            tracked.record(trial)
            told = {"state": describe_state(trial), order.search.objective: trial.value, **trial.params}
            if is_told(trial.number):
                shown = {f"trial {trial.number} of {total}": render_facts(told)}
                context.log_event(dg.AssetObservation(HYPERPARAMETER_SEARCH, metadata=shown))
        progress("trials ended", trial.number + 1, total)

    with stop_for_good(KEPT, context):
        try:
            work_on_search(stores, order, f"{context.run_id}/{context.get_mapping_key()}", on_end)
        except HeimdallError as error:
            raise dg.Failure(f"{error}", allow_retries=isinstance(error, StorageError)) from error


@dg.op(name=FINISH, ins={"done": dg.In(dg.Nothing)})
def finish(
    context: dg.OpExecutionContext,
    config: SearchConfig,
    train_split: Manifest,
    val_split: Manifest,
    stores: dg.ResourceParam[Stores],
    tracking: dg.ResourceParam[ExperimentTracking],
    lineage_pages: LineagePages,
) -> dg.Output[Any]:
    """Lay all trials open as one result: table, best settings, what mattered."""
    from heimdall_assets.pipeline.stages.hyperparameter_search import (
        finish_search,
        list_trials,
        name_search,
        read_importance,
    )

    order = _order(config, train_split, val_split)
    try:
        result = finish_search(stores, order)
    except HeimdallError as error:
        raise dg.Failure(f"{error}", allow_retries=isinstance(error, StorageError)) from error
    summary = result.manifest.summary
    if not result.reused:
        tracked = TrackedSearch(context, tracking, name_search(order))
        tracked.finish(list_trials(stores, order), result.manifest.digest, summary)
    shown = {
        "best": summary["best"],
        "best_value": summary["best_value"],
        "what_mattered": render_facts(read_importance(stores.objects, result.manifest)),
        **show_figures(lineage_pages.locate_search(result.manifest.digest), result.manifest),
    }
    made = materialize(result, shown)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=dg.BetaWarning)  # of Dagster's own word for a version
        return dg.Output(made.value, metadata=made.metadata, data_version=made.data_version)


@dg.config_mapping
def _hand_on(val: SearchConfig) -> dict[str, Any]:
    return {name: {"config": val.model_dump()} for name in (PLAN, WORK, FINISH)}


@dg.graph_asset(
    name=HYPERPARAMETER_SEARCH,
    group_name="heimdall",
    kinds={"pytorch"},
    owners=["team:heimdall"],
    code_version=STAGES[HYPERPARAMETER_SEARCH].code_version,
    config=_hand_on,
)
def hyperparameter_search(train_split: Any, val_split: Any) -> Any:
    """Settings tried one after another or side by side, judged on the validation split. The test split is no input.

    A search that was killed goes on with the trials that had not ended, and ends as it would have ended.
    """

    def start(planned: Any) -> Any:
        return work(planned=planned, train_split=train_split, val_split=val_split)

    done = plan(train_split=train_split, val_split=val_split).map(start).collect()
    return finish(done=done, train_split=train_split, val_split=val_split)
