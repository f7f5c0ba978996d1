"""Variables: what the environment says of the places, each with its kind, its meaning and its embedded default.

Belongs here: the names of the environment variables and how their values are read; everything embedded lies below
``HEIMDALL_HOME``, so two homes never meet. Does not belong here: numbers that decide a result (``specs``).
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from heimdall_assets.errors import InvalidSetting
from heimdall_assets.specs import AcceleratorSpec, KubernetesSpec, MonitoringSpec, RetentionPolicy, RetrainPolicy
from heimdall_assets.stores.home import Stores, open_stores
from heimdall_assets.stores.home_format import EMBEDDED
from heimdall_assets.stores.keys import PEM_VARIABLE, VARIABLE, KeySource, SigningKey, read_key
from heimdall_assets.stores.objects.addresses import BucketAddress, Place
from heimdall_assets.suggestions import suggest_name
from heimdall_assets.variable_kinds import (
    ACCELERATOR,
    BUCKET,
    CLUSTER,
    DATABASE,
    ENDPOINT,
    FILE,
    FOLDER,
    GIGABYTES,
    HOSTS,
    IMAGE,
    KUBERNETES,
    LINEAGE_URL,
    MAIL,
    MLFLOW,
    MONITORING,
    OFFSET,
    OPENLINEAGE,
    PAGE,
    PASSPHRASE,
    PEM,
    PLACE,
    POLICY,
    POSTGRESQL,
    PROFILE,
    RAY_URL,
    RETENTION,
    SECRET,
    SWITCH,
    WEBHOOK,
    WITNESS,
    VariableKind,
    choose,
)

if TYPE_CHECKING:
    from heimdall_assets.stores.witness_places import WitnessPlace

EXECUTORS = ("in_process", "local", "ray", "k8s")
"""Where steps run: in the run's own process, each in one of this machine, the GPU-tagged one on Ray or in a pod."""

WORK_POOLS = ("processes", "ray")
"""What reads recordings, computes features and simulates: processes of this machine, or workers of a Ray cluster."""

OF_TESTS = {
    "HEIMDALL_PG_BIN": "folder with PostgreSQL's own programs, for tests that start those",
    "HEIMDALL_PICTURES": "folder into which the page's test puts pictures of what it saw",
}
"""Read by the tests alone; the commands they start inherit them."""

_SERVICE_LINK = re.compile(
    r"HEIMDALL_(\w+_)?(SERVICE_HOST=\S+|SERVICE_PORT(_\w+)?=\d+|PORT(_\d+_[A-Z]+)?=[a-z]+://\S+"
    r"|PORT_\d+_[A-Z]+_(ADDR|PORT|PROTO)=\S+)"
)
"""How Kubernetes tells each container of a service whose name begins with ``heimdall``."""


@dataclass(frozen=True)
class BelowHome:
    """A default that lies below the home."""

    name: str
    scheme: str = ""

    def __call__(self, read: dict[str, Any]) -> str:
        return f"{self.scheme}{read['home'] / self.name}"

    def __str__(self) -> str:
        return f"{self.scheme}$HEIMDALL_HOME/{self.name}"


def _variable(name: str, default: str | BelowHome | None, description: str) -> Any:
    given: dict[str, Any] = {"default_factory": default} if isinstance(default, BelowHome) else {"default": default}
    return Field(**given, validation_alias=name, description=description)


class Places(BaseSettings):
    """Where rows, bytes, releases and histories rest, and how steps run."""

    model_config = SettingsConfigDict(frozen=True, case_sensitive=True, extra="ignore", hide_input_in_errors=True)

    home: Annotated[Path, FOLDER] = _variable("HEIMDALL_HOME", ".heimdall", "everything embedded, below one folder")
    database_url: Annotated[str, DATABASE] = _variable(
        "HEIMDALL_DATABASE_URL",
        BelowHome(EMBEDDED, "sqlite:///"),
        "stations, sources, sessions, approvals and the ledger of releases; SQLite or PostgreSQL",
    )
    objects: Annotated[Place, PLACE] = _variable(
        "HEIMDALL_OBJECTS", BelowHome("objects"), "every result, under its SHA-256"
    )
    recordings: Annotated[Place, PLACE] = _variable(
        "HEIMDALL_RECORDINGS", BelowHome("recordings"), "recordings that others wrote, read by name"
    )
    receivers: Annotated[Path | None, FILE] = _variable(
        "HEIMDALL_RECEIVERS", None, "where the receivers of a database of one table stand; JSON"
    )
    time_zone: Annotated[str | None, OFFSET] = _variable(
        "HEIMDALL_TIME_ZONE", None, "of the times in a database of one table that carry none"
    )
    models: Annotated[Place, PLACE] = _variable(
        "HEIMDALL_MODELS", BelowHome("heimdall-models"), "released models, one folder a version"
    )
    ledger_url: Annotated[str | None, DATABASE] = _variable(
        "HEIMDALL_LEDGER_URL",
        None,
        "ledger of releases where the database is the field's own; unset: releases.db beside the models",
    )
    signing_key: Annotated[Path | None, FILE] = _variable(
        "HEIMDALL_SIGNING_KEY", None, "private key that signs releases, made by heimdall keys make; unset: unsigned"
    )
    signing_key_pem: Annotated[str | None, PEM] = _variable(
        "HEIMDALL_SIGNING_KEY_PEM", None, "the private key itself instead of its file, for secrets of a cluster"
    )
    signing_key_passphrase: Annotated[str | None, PASSPHRASE] = _variable(
        "HEIMDALL_SIGNING_KEY_PASSPHRASE", None, "opens private keys that are encrypted, those of --key too"
    )
    scratch: Annotated[Path, FOLDER] = _variable(
        "HEIMDALL_SCRATCH", BelowHome("scratch"), "trainings under way, which go on from here after an end"
    )
    s3_endpoint: Annotated[str | None, ENDPOINT] = _variable(
        "AWS_ENDPOINT_URL_S3", None, "address of an S3 service other than Amazon's; keys are none of ours"
    )
    cache: Annotated[Path, FOLDER] = _variable(
        "HEIMDALL_CACHE", BelowHome("cache"), "copies of objects that rest in a bucket"
    )
    cache_gb: Annotated[float, GIGABYTES] = _variable(
        "HEIMDALL_CACHE_GB", "10", "how much the copies may take; those used least recently go first"
    )
    dagster_home: Annotated[Path, FOLDER] = _variable(
        "DAGSTER_HOME", BelowHome("dagster"), "the graph's history, and the dagster.yaml that says where it is kept"
    )
    dagster_url: Annotated[str | None, POSTGRESQL] = _variable(
        "HEIMDALL_DAGSTER_URL", None, "the graph's history: runs, events, schedules; beside dagster.yaml where not set"
    )
    compute_logs: Annotated[BucketAddress | None, BUCKET] = _variable(
        "HEIMDALL_COMPUTE_LOGS", None, "what steps write to their terminal; beside dagster.yaml where not set"
    )
    mlflow_uri: Annotated[str, MLFLOW] = _variable(
        "MLFLOW_TRACKING_URI", BelowHome("mlflow.db", "sqlite:///"), "what each training tells of itself"
    )
    tracking: Annotated[bool, SWITCH] = _variable("HEIMDALL_TRACKING", "on", "off: MLflow is told nothing")
    image: Annotated[str | None, IMAGE] = _variable(
        "HEIMDALL_IMAGE", None, "the container image that this runs in, as MLflow's runs are told of it"
    )
    executor: Annotated[str, choose(*EXECUTORS)] = _variable(
        "HEIMDALL_EXECUTOR", EXECUTORS[0], "where steps run when a run's configuration does not say"
    )
    ray_address: Annotated[str, CLUSTER] = _variable(
        "HEIMDALL_RAY_ADDRESS", RAY_URL, "the Ray cluster: its dashboard, or ray://HEAD:10001"
    )
    work_pool: Annotated[str, choose(*WORK_POOLS)] = _variable(
        "HEIMDALL_WORK_POOL", WORK_POOLS[0], "who reads recordings, computes features and simulates"
    )
    kubernetes: Annotated[KubernetesSpec, KUBERNETES] = _variable(
        "HEIMDALL_KUBERNETES", "{}", "the cluster whose pods train: image, namespace, names of secrets, volumes"
    )
    kubeconfig: Annotated[Path | None, FILE] = _variable(
        "KUBECONFIG", None, "the file that opens the cluster; else a pod's service account does, or ~/.kube/config"
    )
    accelerator: Annotated[AcceleratorSpec, ACCELERATOR] = _variable(
        "HEIMDALL_ACCELERATOR", "{}", "which GPU training asks for, how much memory, how long it may take"
    )
    webhook_url: Annotated[str | None, WEBHOOK] = _variable(
        "HEIMDALL_WEBHOOK_URL", None, "is sent title and text of each failed run and each alert, as JSON"
    )
    mail: Annotated[str | None, MAIL] = _variable(
        "HEIMDALL_MAIL", None, "the mail server that sends the same to people: smtp://HOST?from=ADDRESS&to=ADDRESS"
    )
    witness: Annotated[tuple[Place | str, ...], WITNESS] = _variable(
        "HEIMDALL_WITNESS", "", "the second place: is given the log's checkpoint after each release and promotion"
    )
    openlineage: Annotated[str | Path | None, OPENLINEAGE] = _variable(
        "HEIMDALL_OPENLINEAGE", None, "is told of each asset while a run goes on, as OpenLineage events"
    )
    profile: Annotated[str | None, PROFILE] = _variable(
        "HEIMDALL_PROFILE",
        None,
        "of trainings that name none: heimdall train, the page's jobs, the sensor's first model (heimdall config list)",
    )
    retrain: Annotated[RetrainPolicy, POLICY] = _variable(
        "HEIMDALL_RETRAIN", "{}", "when a changed set of approved sessions is trained on"
    )
    monitoring: Annotated[MonitoringSpec, MONITORING] = _variable(
        "HEIMDALL_MONITORING", "{}", "when the champion in use, or what it is given, is no longer as it was released"
    )
    retention: Annotated[RetentionPolicy, RETENTION] = _variable(
        "HEIMDALL_RETENTION", "{}", "what is kept of runs that ended"
    )
    lineage_url: Annotated[str, PAGE] = _variable(
        "HEIMDALL_LINEAGE_URL",
        LINEAGE_URL,
        "where a browser finds the lineage page of release v, at URL/v, its results, card and figures",
    )
    users: Annotated[Path | None, FILE] = _variable(
        "HEIMDALL_USERS",
        None,
        "who may open the page, as heimdall users writes it; where none is named, nobody is asked",
    )
    allowed_hosts: Annotated[tuple[str, ...], HOSTS] = _variable(
        "HEIMDALL_ALLOWED_HOSTS", "", "further names of the page, as a proxy or a network calls it"
    )
    session_key: Annotated[str | None, SECRET] = _variable(
        "HEIMDALL_SESSION_SECRET", None, "signs the sessions of the page's users; else a file in the home does"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _read(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        return None if value is None else find_kind(field).read(value, str(field.validation_alias))

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Give what may be shown: a traceback or a log names no password."""
        for name, value in super().__repr_args__():
            yield name, "..." if name and find_kind(type(self).model_fields[name]).is_secret and value else value

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Places":
        """Return the places that ``environ`` names; an empty value is none.

        Raises:
            InvalidSetting: a variable of ours that is none, or a value that is not of its variable's kind.
        """
        given = {name: text for name, text in environ.items() if text}
        _refuse_unknown(given)
        return cls(environ=given)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the one source: the environment that ``read`` was handed."""
        return (_Given(settings_cls, init_settings()["environ"]),)

    def share(self) -> dict[str, str]:
        """Return the variables that send a step's process to these places, wherever it runs; none holds a secret.

        Addresses of databases, which may hold passwords, are not among them: whoever runs steps elsewhere has them.
        """
        return {
            "HEIMDALL_HOME": str(self.home),
            "HEIMDALL_OBJECTS": str(self.objects),
            "HEIMDALL_RECORDINGS": str(self.recordings),
            "HEIMDALL_RECEIVERS": str(self.receivers or ""),
            "HEIMDALL_TIME_ZONE": self.time_zone or "",
            "HEIMDALL_MODELS": str(self.models),
            "HEIMDALL_SCRATCH": str(self.scratch),
            "AWS_ENDPOINT_URL_S3": self.s3_endpoint or "",
            "HEIMDALL_CACHE": str(self.cache),
            "HEIMDALL_CACHE_GB": repr(self.cache_gb),
            "HEIMDALL_TRACKING": "on" if self.tracking else "off",
            "HEIMDALL_EXECUTOR": self.executor,
            "HEIMDALL_RAY_ADDRESS": self.ray_address,
            "HEIMDALL_WORK_POOL": self.work_pool,
            "HEIMDALL_KUBERNETES": self.kubernetes.model_dump_json(exclude_unset=True),
            "HEIMDALL_ACCELERATOR": self.accelerator.model_dump_json(exclude_unset=True),
            "HEIMDALL_LINEAGE_URL": self.lineage_url,
            "HEIMDALL_PROFILE": "",  # what a run took from it stands in its configuration
        }

    def spread_work(self) -> AbstractContextManager[None]:
        """Have large amounts of work done where ``HEIMDALL_WORK_POOL`` says; a cluster is joined by the first."""
        if self.work_pool == "processes":
            return nullcontext()
        from heimdall_assets.defs.executor.ray_workers import build_backend
        from heimdall_assets.pipeline.work_pool import spread_with

        return spread_with(partial(build_backend, self.ray_address))

    def open_witnesses(self) -> "tuple[WitnessPlace, ...]":
        """Return the second places that keep checkpoints, those of ``HEIMDALL_WITNESS`` that are no web addresses."""
        from heimdall_assets.stores.witness_places import open_witness

        return tuple(open_witness(place, self.s3_endpoint) for place in self.witness if not isinstance(place, str))

    def find_signing_key(self) -> KeySource | None:
        """Return where the key that signs comes from, which is not read yet; None: nothing is signed.

        Raises:
            InvalidSetting: both its file and itself are set.
        """
        if self.signing_key is not None and self.signing_key_pem is not None:
            raise InvalidSetting(f"{PEM_VARIABLE}: found {VARIABLE} set too, expected one of them")
        if self.signing_key is None and self.signing_key_pem is None:
            return None
        return KeySource(self.signing_key, self.signing_key_pem or "", self.signing_key_passphrase or "")

    def read_key(self, path: Path, what: str) -> SigningKey:
        """Return the private key in a file that ``what`` names, opened with the passphrase where it is encrypted.

        Raises:
            InvalidSetting: there is no such file, it holds no such key, or the passphrase does not open it.
        """
        return read_key(path, what, self.signing_key_passphrase or "")

    def open_stores(self, begin: bool = True) -> Stores:
        """Return the opened stores; the embedded database is created and upgraded on first use.

        Raises:
            NoHome: nothing is there yet, and ``begin`` is false.
            NotFound: the database that is stated is not there or holds no tables, and ``begin`` is false.
        """
        return open_stores(
            home=str(self.home),
            database_url=self.database_url,
            objects=str(self.objects),
            recordings=str(self.recordings),
            models=str(self.models),
            scratch=str(self.scratch),
            cache=str(self.cache),
            cache_gb=self.cache_gb,
            s3_endpoint=self.s3_endpoint or "",
            ledger_url=self.ledger_url or "",
            receivers=str(self.receivers or ""),
            time_zone=self.time_zone or "",
            signing_key=self.find_signing_key(),
            begin=begin,
        )


class _Given(PydanticBaseSettingsSource):
    """Variables of a mapping that was handed over, which need not be this process's environment."""

    def __init__(self, settings_cls: type[BaseSettings], environ: Mapping[str, str]):
        super().__init__(settings_cls)
        self._environ = environ

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._environ.get(str(field.validation_alias)), field_name, False

    def __call__(self) -> dict[str, Any]:
        names = [str(field.validation_alias) for field in self.settings_cls.model_fields.values()]
        return {name: self._environ[name] for name in names if name in self._environ}


def find_kind(field: FieldInfo) -> VariableKind:
    """Return what the variable of a field of ``Places`` holds."""
    return next(item for item in field.metadata if isinstance(item, VariableKind))


def describe_default(field: FieldInfo) -> str:
    """Return what a variable that is not set stands for, as text; nothing where nothing stands for it."""
    if isinstance(field.default_factory, BelowHome):
        return str(field.default_factory)
    return "" if field.default is None else str(field.default)


def list_variables() -> dict[str, FieldInfo]:
    """Return the field of every variable by the variable's name, in the order of ``Places``."""
    return {str(field.validation_alias): field for field in Places.model_fields.values()}


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    """Refuse a name like ours that is none of ours: a misspelled place would be the embedded one without a word."""
    known = list_variables()
    for name, text in environ.items():
        is_ours = name in known or name in OF_TESTS or _SERVICE_LINK.fullmatch(f"{name}={text}")
        if name.upper().startswith("HEIMDALL_") and not is_ours:
            own = {variable.removeprefix("HEIMDALL_"): variable for variable in known}  # what all share tells nothing
            meant = suggest_name(name[len("HEIMDALL_") :], own, alike=0.0)
            raise InvalidSetting(f"{name}: no such variable, did you mean {meant}? (heimdall settings lists them)")
