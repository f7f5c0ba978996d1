"""Experiments: what the runs of trainings are told beside their own curves, on an MLflow tracking store.

Belongs here: which run made which checkpoint, figures and versions attached to it later, aliases mirrored for people
who look there. Not the run itself (``defs.tracking``), and nothing that anything here depends on: releases, aliases and
lineage have their own ledger, and MLflow may be away.
"""

import json
import os
import time
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heimdall_assets.errors import NotFound, OutOfReach, StorageError
from heimdall_assets.libraries import silence_libraries
from heimdall_assets.manifests import encode_canonical_json
from heimdall_assets.media_types import JSON_MEDIA_TYPE
from heimdall_assets.stores.experiment_entries import (
    Entries,
    describe_data,
    encode_param,
    encode_tag,
    make_batches,
)
from heimdall_assets.stores.experiment_files import EMBEDDED, SERVED, keep_files
from heimdall_assets.stores.objects.folder import ObjectStore

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "heimdall"
NOWHERE = f"{SERVED}:"
"""Where an embedded store says that files are: with whichever server is started on it (``experiment_files``)."""
REGISTERED_MODEL = "heimdall"
VERSION_TAG = "heimdall.version"
TRAINED_TAG = "heimdall.trained"
"""yes or no: whether training made the model better than it started."""
QUIET = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # Its address, and so a password in it, on the terminal and amidst JSON.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A store that is away is given up within seconds, not after MLflow's own quarter of an hour.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}
"""What else MLflow reads from the environment of this process (``libraries``); what is set already wins."""


def prepare_mlflow() -> None:
    """Make MLflow quiet, before it is imported: it reads what it is told then."""
    silence_libraries()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def note_run(objects: ObjectStore, checkpoint: str, run_id: str) -> None:
    """Keep which MLflow run made the checkpoint with manifest digest ``checkpoint``."""
    data = encode_canonical_json({"checkpoint": checkpoint, "mlflow_run_id": run_id})
    objects.write_reference(_name_run(checkpoint), objects.put_bytes(data, JSON_MEDIA_TYPE).digest)


def find_run(objects: ObjectStore, checkpoint: str) -> str | None:
    """Return the id of the MLflow run that made a checkpoint, or None: it was made untracked."""
    noted = _read_note(objects, _name_run(checkpoint))
    return None if noted is None else str(noted["mlflow_run_id"])


def _name_run(checkpoint: str) -> str:
    return f"experiments/{checkpoint.removeprefix('sha256:')}"


def _read_note(objects: ObjectStore, name: str) -> dict[str, Any] | None:
    digest = objects.read_reference(name)
    if digest is None:
        return None
    try:
        return dict(json.loads(objects.read_bytes(digest)))
    except OutOfReach:
        raise
    except (StorageError, ValueError):
        return None  # a convenience: damaged is as good as absent


class ExperimentStore:
    """The MLflow store behind ``uri``; opened at first use, which costs seconds."""

    def __init__(self, uri: str):
        self.uri = uri

    def open_client(self) -> "MlflowClient":
        """Return a client of the store; an embedded one is made on first use."""
        prepare_mlflow()
        from mlflow import MlflowClient

        return MlflowClient(self.uri)

    def ensure_experiment(self) -> None:
        """Make the experiment if there is none."""
        from mlflow.exceptions import MlflowException

        embedded = self.uri.startswith(EMBEDDED)
        if embedded:
            self._begin_embedded()
        client = self.open_client()
        if client.get_experiment_by_name(EXPERIMENT) is not None:
            return
        try:
            client.create_experiment(EXPERIMENT, artifact_location=f"{NOWHERE}/{EXPERIMENT}" if embedded else None)
        except MlflowException:
            if client.get_experiment_by_name(EXPERIMENT) is None:  # else: another process was faster
                raise

    def _begin_embedded(self) -> None:
        """Make an embedded store that knows no address: MLflow would write the folder it happens to be made in."""
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        if not Path(self.uri.removeprefix("sqlite:///")).exists():
            SqlAlchemyStore(self.uri, NOWHERE)  # type: ignore[no-untyped-call]

    def find_or_begin(self, tags: Mapping[str, str], name: str, own: Mapping[str, str]) -> str:
        """Return the run that has all of ``tags``, or a new one called ``name`` with these and its ``own`` tags.

        Whoever tries again goes on in the run that was begun.
        """
        client = self.open_client()
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            raise NotFound(f"experiment {EXPERIMENT}: MLflow has none of that name, expected it to be made before runs")
        asked = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())
        found = client.search_runs([experiment.experiment_id], asked, max_results=1)
        if found:
            return str(found[0].info.run_id)
        made = client.create_run(experiment.experiment_id, tags={**own, **tags}, run_name=name)
        return str(made.info.run_id)

    def check(self, run_id: str) -> None:
        """Return where the store answers and knows a run; whatever MLflow and the network raise where not."""
        self.open_client().get_run(run_id)

    def write(self, run_id: str, entries: Entries) -> None:
        """Tell a run what belongs to it, but for its files, in as few calls as MLflow allows.

        A setting that the run has with another value, as when a checkpoint is judged anew with other settings, stays;
        the newer one becomes a tag of that name.
        """
        from mlflow.entities import Metric, Param, RunTag

        client, now_ms = self.open_client(), int(time.time() * 1000)
        metrics = [Metric(name, float(value), now_ms, 0) for name, value in entries.metrics.items()]
        params = {name: encode_param(value) for name, value in entries.params.items()}
        known = client.get_run(run_id).data.params if params else {}
        newer = {name: text for name, text in params.items() if known.get(name, text) != text}
        first = {name: text for name, text in params.items() if name not in known}
        parts: Iterable[tuple[dict[str, str], dict[str, str]]] = zip_longest(
            make_batches(first), make_batches({**entries.tags, **newer}), fillvalue={}
        )
        for settings, tags in [*parts] or [({}, {})]:
            client.log_batch(
                run_id,
                metrics=metrics,
                params=[Param(name, text) for name, text in settings.items()],
                tags=[RunTag(name, encode_tag(text)) for name, text in tags.items()],
                synchronous=True,
            )
            metrics = []
        if entries.data:
            client.log_inputs(run_id, [describe_data(data) for data in entries.data])

    def write_files(self, run_id: str, files: Mapping[str, bytes]) -> None:
        """Keep files with a run.

        Raises:
            StorageError: the run's place of files is none that can be written from here.
        """
        keep_files(self.open_client(), self.uri, run_id, files)

    def end_killed(self, dagster_run_id: str) -> list[str]:
        """Give the status KILLED to every run of a Dagster run that is still "running"; return their ids.

        Its process was killed and could not say so itself.
        """
        client = self.open_client()
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return []
        asked = f"attributes.status = 'RUNNING' and tags.dagster_run_id = '{dagster_run_id}'"
        ended = [str(run.info.run_id) for run in client.search_runs([experiment.experiment_id], asked)]
        for run_id in ended:
            client.set_terminated(run_id, "KILLED")
        return ended

    def register_release(self, run_id: str | None, version: str, release: str) -> str:
        """Return the number of the registered model version that stands for a release, made if there is none."""
        client = self.open_client()
        found = self._find_version(client, version)
        if found is not None:
            return found
        self._ensure_model(client)
        made = client.create_model_version(
            REGISTERED_MODEL,
            # A home may be moved: its ledger knows where the files are. A server takes absolute addresses alone.
            source=f"heimdall:/{version}",
            run_id=run_id,
            tags={VERSION_TAG: version, "heimdall.release": release},
            description=f"Release {version}; its ledger and lineage: heimdall lineage {version}",
        )
        if run_id is not None:
            client.set_tag(run_id, VERSION_TAG, version)
        return str(made.version)

    def mirror_aliases(self, objects: ObjectStore, aliases: Mapping[str, str | None]) -> bool:
        """Make the registered model's aliases those of the ledger; return whether anything had to be said to MLflow.

        Raises:
            NotFound: MLflow was never told of one of the releases; the other aliases are set.
        """
        told = _read_note(objects, "experiments/aliases")
        if told == dict(aliases):
            return False
        client = self.open_client()
        unknown = []
        for alias, version in aliases.items():
            number = None if version is None else self._find_version(client, version)
            if number is not None:
                client.set_registered_model_alias(REGISTERED_MODEL, alias, number)
            elif version is not None:
                unknown.append(f"{alias} {version}")
        if unknown:
            raise NotFound(f"{', '.join(unknown)}: found no registered version, it was released untracked")
        data = encode_canonical_json(dict(aliases))
        objects.write_reference("experiments/aliases", objects.put_bytes(data, JSON_MEDIA_TYPE).digest)
        return True

    def _ensure_model(self, client: "MlflowClient") -> None:
        from mlflow.exceptions import MlflowException

        try:
            client.get_registered_model(REGISTERED_MODEL)
        except MlflowException:
            client.create_registered_model(REGISTERED_MODEL, description="Releases; aliases mirror heimdall's ledger.")

    @staticmethod
    def _find_version(client: "MlflowClient", version: str) -> str | None:
        found = client.search_model_versions(f"name='{REGISTERED_MODEL}'")
        return next((str(item.version) for item in found if item.tags.get(VERSION_TAG) == version), None)
