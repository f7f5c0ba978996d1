"""Findings: what an audit is given about a release, and what it says about it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pandas as pd

PROVENANCE_FILE = "provenance.json"


class ObjectReader(Protocol):
    """What the audit needs of an object store."""

    def read_bytes(self, digest: str) -> bytes:
        """Return the bytes at rest under ``digest``, hashed; a ``HeimdallError`` where they are gone or damaged."""

    def exists(self, digest: str) -> bool:
        """Return whether something rests under ``digest``."""

    def read_reference(self, name: str) -> str | None:
        """Return the digest behind a reference, None where there is none; a ``HeimdallError`` where it is damaged."""


class SignerKey(Protocol):
    """What the audit needs of a public key: itself in PEM, whose it is, and which entry of the log retired it."""

    @property
    def public_pem(self) -> str: ...
    @property
    def owner(self) -> str: ...
    @property
    def retired_entry(self) -> int | None: ...


class Erasure(Protocol):
    """What the audit needs of the erasure of a session: which one, its measurements, objects that went, and words."""

    @property
    def session(self) -> str | None: ...
    @property
    def measurements(self) -> Sequence[str]: ...
    @property
    def objects(self) -> Sequence[str]: ...
    def describe(self) -> str: ...


@dataclass(frozen=True)
class Finding:
    """One disagreement.

    Attributes:
        kind: object | recording | manifest | reference | provenance | release_file | signature | ledger_row |
            database_row | dagster_event | receipt | witness.
        name: the thing itself: digest, file, row.
        found, expected: in words.
        releases: versions that hang on the thing.
        next_command: what to do now.
        severity: error: bytes or rows disagree; notice: nothing is wrong, but somebody should know.
    """

    kind: str
    name: str
    found: str
    expected: str
    releases: tuple[str, ...]
    next_command: str
    severity: str = "error"

    def describe(self) -> str:
        """Return one line."""
        touched = f"; touches {', '.join(self.releases)}" if self.releases else ""
        return (
            f"{self.severity}: {self.kind} {self.name}: found {self.found}, expected {self.expected}{touched}; "
            f"next: {self.next_command}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**asdict(self), "releases": list(self.releases)}


@dataclass(frozen=True)
class Evidence:
    """What lies at rest about one release, as it lies.

    Attributes:
        version: of the release.
        files: name -> bytes in the release's folder now.
        release: the ledger's record of the release: ``files`` (name -> {sha256, size}), ``provenance``, ``manifest``,
            ``evaluation``, ``specs`` and figures.
        approval_events: the ledger's rows of the release's sessions, or all.
        ledger_problems: what is wrong with the log, and with the ledgers beside it.
        strangers: what lies among the releases and no row of the database says: thing -> what was found.
        log: checkpoint of today's log over as many entries as when the release was made (``log``, ``size``, ``root``);
            None: there are fewer now.
        keys: id -> public key that counts or did.
        entry: number of the release's entry of the log; None: it has none.
        logged: file -> SHA-256, as that entry says; empty: it has none.
        dagster_events: storage id -> asset, run_id, data_version, inputs (asset -> data version), or some of them;
            an id that is not there: the event is gone; None: no
            Dagster instance at hand, which is not compared.
        erased: sessions that were erased, as the log tells, without what was stored again since.
        database_rows: today's rows behind approved sessions, usable or not: table of the database -> columns as in
            ``domain.APPROVED_COLUMNS``; None: not compared.
    """

    version: str
    files: Mapping[str, bytes]
    release: Mapping[str, Any]
    approval_events: Sequence[Mapping[str, Any]] = ()
    ledger_problems: Sequence[str] = ()
    strangers: Mapping[str, str] = field(default_factory=dict)
    log: Mapping[str, Any] | None = None
    keys: Mapping[str, SignerKey] = field(default_factory=dict)
    entry: int | None = None
    logged: Mapping[str, str] = field(default_factory=dict)
    dagster_events: Mapping[int, Mapping[str, Any]] | None = None
    erased: Sequence[Erasure] = ()
    database_rows: "Mapping[str, pd.DataFrame] | None" = field(default=None, compare=False)
