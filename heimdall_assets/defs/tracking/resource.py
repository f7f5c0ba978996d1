"""The resource through which steps reach MLflow; imports it only when there is something to say."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from heimdall_assets.defs.tracking.names import find_page, name_store
from heimdall_assets.defs.tracking.training import Describe, TrackedTraining, warn
from heimdall_assets.stores.experiment_entries import Entries
from heimdall_assets.stores.experiment_files import find_folder
from heimdall_assets.stores.experiments import EXPERIMENT, ExperimentStore


@dataclass(frozen=True)
class ExperimentTracking:
    """The experiment runs in MLflow.

    No resource with configuration: its address may hold a password, and Dagster's page would show it.

    Attributes:
        tracking_uri: of the store.
        enabled: whether it is told anything.
        image: the container image that steps run in, as whoever started it calls it; None: it was not said.
    """

    tracking_uri: str = field(repr=False)
    enabled: bool = True
    image: str | None = None

    def open_store(self) -> ExperimentStore | None:
        """Return the store that is told of trainings, None where none is; it costs nothing until it is used."""
        return ExperimentStore(self.tracking_uri) if self.enabled else None

    def find_files(self) -> Path | None:
        """Return the folder whose folders are the files of one run each; None: they are with a server."""
        folder = find_folder(self.tracking_uri) if self.enabled else None
        return None if folder is None else folder / EXPERIMENT

    def follow(self, context: dg.AssetExecutionContext, told: Mapping[str, Any] | Describe) -> TrackedTraining:
        """Return the tracking of one training, a context manager whose end gives the run its status.

        Args:
            context: of its step.
            told: settings by name, or what gives all that the run is told when it opens.
        """
        describe = told if callable(told) else lambda: Entries(params=told)
        return TrackedTraining(context, self.open_store(), describe, self.image)

    def show_run(self, run_id: str | None) -> dict[str, Any]:
        """Return metadata that leads to a run: the address of its page, or the command that opens an embedded store."""
        if run_id is None:
            return {}
        page = find_page(self.tracking_uri, run_id)
        told = f"mlflow ui {name_store(self.tracking_uri)}, then http://127.0.0.1:5000/#/runs/{run_id}"
        return {"mlflow": dg.MetadataValue.url(page) if page else told, "mlflow_run_id": run_id}

    def tell(self, context: dg.AssetExecutionContext, what: str, act: Callable[[ExperimentStore], object]) -> None:
        """Let ``act`` tell the store something; where it is away, one warning says what it was not told."""
        store = self.open_store()
        if store is None:
            return
        try:
            act(store)
        except Exception as error:
            warn(context, what, error)

    def describe(self, context: dg.AssetExecutionContext, run_id: str | None, what: str, describe: Describe) -> None:
        """Tell a training's run what a later step made of it; nothing where there is no run to tell.

        What it is told is not worked out before the store has answered; figures come before files, and where only the
        place of files is away, they are there.
        """
        if run_id is None:
            return

        def write(store: ExperimentStore) -> None:
            store.check(run_id)
            entries = describe()
            store.write(run_id, entries)
            if entries.files:
                store.write_files(run_id, entries.files)

        self.tell(context, f"attach {what}", write)
