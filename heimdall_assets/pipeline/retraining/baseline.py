"""Baseline: what a retraining keeps, and what it is compared with.

Retraining answers the champion's question again on today's approved set: it keeps the champion's settings, its choice
of campaigns too, and counts what has changed since a model was last released with them. An experiment released with
other settings beside it changes neither.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from heimdall_assets.errors import InvalidSetting
from heimdall_assets.kinds import APPROVED_MEASUREMENTS, MEASUREMENT_DATABASE
from heimdall_assets.manifests import Manifest, compute_json_digest
from heimdall_assets.pipeline.recipe import SPECS
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.specs import DatasetSpec, GateSpec, Spec
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.tables import load_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Baseline:
    """What a retraining starts from.

    Attributes:
        settings_of: the release whose settings are kept; None: nothing is released yet, and today's defaults hold.
        specs: these settings.
        event: number of the promotion event that last released a model of these settings; 0: none did.
        fingerprint: of the approved set that model was made from.
        decisions: session id -> number of the decision that approved it, of that set.
    """

    settings_of: str | None = None
    specs: tuple[Spec, ...] = ()
    event: int = 0
    fingerprint: str | None = None
    decisions: dict[str, int] = field(default_factory=dict)

    @property
    def dataset(self) -> DatasetSpec:
        """Which approved sessions count."""
        return next((spec for spec in self.specs if isinstance(spec, DatasetSpec)), DatasetSpec())

    def name_step_to(self, fingerprint: str) -> str:
        """Return what tells this retraining, from here to the approved set ``fingerprint``, from every other one."""
        settings = sorted(spec.digest() for spec in self.specs)
        return compute_json_digest({"event": self.event, "settings": settings, "to": fingerprint})


def read_baseline(stores: Stores) -> Baseline:
    """Return what a retraining keeps and what it is compared with.

    A release counts once it is the challenger: one whose run was killed before that is decided by the next run.

    Raises:
        InvalidSetting: the kept settings are not valid today.
    """
    from heimdall_assets.pipeline.releases.promotion import (  # judges models: slow to load
        CHALLENGER,
        CHAMPION,
        find_alias,
    )

    records = {str(record["version"]): record for record in stores.releases.list_releases()}
    challengers = [
        event
        for event in stores.releases.list_promotion_events()
        if event["alias"] == CHALLENGER and event["version"] in records
    ]
    kept = find_alias(stores, CHAMPION) or (challengers[-1]["version"] if challengers else None)
    if kept is None:
        return Baseline()
    specs = _read_specs(kept, records[kept])
    same = [event for event in challengers if records[event["version"]]["specs"] == records[kept]["specs"]]
    if not same:
        return Baseline(kept, specs)
    released = Manifest.decode(stores.objects.read_bytes(records[same[-1]["version"]]["manifest"]))
    snapshot = read_parent(stores.objects, released, APPROVED_MEASUREMENTS)
    decisions = list_decisions(load_table(stores.objects, snapshot.artifacts["table"]))
    return Baseline(kept, specs, int(same[-1]["id"]), snapshot.parents[MEASUREMENT_DATABASE], decisions)


def list_decisions(rows: "pd.DataFrame") -> dict[str, int]:
    """Return session id -> number of the decision that approved it (0 where a database has none) of a snapshot."""
    sessions = rows.drop_duplicates("session_id")
    decisions = sessions["approval_event_id"].fillna(0)
    return {str(name): int(decision) for name, decision in zip(sessions["session_id"], decisions, strict=True)}


def _read_specs(version: str, record: dict[str, Any]) -> tuple[Spec, ...]:
    """Return a release's settings, and its gates where it was made when there were any."""
    recorded = record["specs"] | ({GateSpec.__name__: record["gates"]} if "gates" in record else {})
    try:
        return tuple(SPECS[name](**fields) for name, fields in sorted(recorded.items()))
    except (KeyError, ValidationError) as error:
        raise InvalidSetting(
            f"release {version}: its settings are not valid today ({' '.join(str(error).split()):.200}); "
            "train and promote a model with today's settings"
        ) from error
