"""Resources: the doors through which assets reach the stores.

None has configuration: Dagster keeps a resource's configuration with the code location and shows it in the page and
in GraphQL to whoever asks, and an address may hold a password. What is shown is text that says where to look.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from heimdall_assets.defs.io_manager import ManifestIOManager
from heimdall_assets.defs.origins import WANDB_TAG, describe_origin, hide_person
from heimdall_assets.pipeline.results import tell_results
from heimdall_assets.stores.computing import originate
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.wandb_runs import OfflineCurves, is_installed


def build_stores(
    open_stores: Callable[[], Stores], description: str, spread_work: Callable[[], AbstractContextManager[None]]
) -> dg.ResourceDefinition:
    """Return the resource whose value is the opened stores.

    Args:
        open_stores: opens them.
        description: all that the page shows of it.
        spread_work: entered while a step has them: where its large amounts of work are done.
    """

    def open_for_step(context: dg.InitResourceContext) -> Iterator[Stores]:
        from heimdall_assets.pipeline.tracing.indexing import build_listener

        stores = open_stores()
        origin = hide_person(describe_origin(context.run), stores)
        with spread_work(), originate(origin), tell_results(build_listener(stores)):
            yield stores

    return dg.ResourceDefinition(open_for_step, description=description)


class LineagePages(dg.ConfigurableResource[Any]):
    """Where people read lineage and decide about sessions; Dagster's page itself shows neither HTML nor files."""

    url: str

    def link(self, version: str, part: str = "") -> dg.UrlMetadataValue:
        """Return the address of the lineage of one release, or of its ``results`` or ``card``."""
        return dg.MetadataValue.url(f"{self.url}/{version}/{part}".rstrip("/"))

    def link_sessions(self) -> dg.UrlMetadataValue:
        """Return the address where sessions are looked at and decided about."""
        return dg.MetadataValue.url(f"{self.url}/sessions")

    def locate_results(self, evaluation: str) -> str:
        """Return the address of an evaluation's page: tables and figures together."""
        return f"{self.url}/results/{evaluation}"

    def locate_search(self, search: str) -> str:
        """Return the address below which a search's figures are."""
        return f"{self.url}/searches/{search}"

    def locate_run(self, run_id: str) -> str:
        """Return the address of the page of a training, which draws how it goes while it runs."""
        return f"{self.url}/runs/{run_id}"

    def locate_losses(self, checkpoint: str) -> str:
        """Return the address of the picture of a training's losses over epochs."""
        return f"{self.url}/trainings/{checkpoint}/losses.svg"

    def locate_rates(self, checkpoint: str) -> str:
        """Return the address of the picture of what a training's range test of the learning rate saw."""
        return f"{self.url}/trainings/{checkpoint}/rates.svg"


@dataclass(frozen=True)
class WeightsAndBiases:
    """Where the curves of trainings rest that Weights & Biases is told of, offline."""

    folder: Path

    def follow(self, context: dg.AssetExecutionContext, params: Mapping[str, Any]) -> OfflineCurves:
        """Return the curves of one training: written where its run's profile says so, beside what MLflow is told."""
        wanted = context.run.tags.get(WANDB_TAG, "never")
        is_told = wanted == "always" or (wanted == "installed" and is_installed())
        if wanted == "installed" and not is_told:
            context.log.warning("Weights & Biases is told nothing: heimdall-assets[wandb] is not installed")
        return OfflineCurves(self.folder if is_told else None, context.run.run_id[:8], params, context.log.warning)


@dg.io_manager(required_resource_keys={"stores"}, description="Manifests, by digest, in the stores' objects.")
def manifest_io_manager(context: dg.InitResourceContext) -> ManifestIOManager:
    """Return the IO manager on the object store of the resource ``stores``."""
    return ManifestIOManager(context.resources.stores.objects)
