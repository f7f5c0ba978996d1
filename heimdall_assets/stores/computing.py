"""Computing: the facts of a computation: who or what started it, why, when, how long, by which code, on which machine.

Belongs here: taking them when a result is computed, keeping them beside it, reading them back. Does not belong here:
the result (``pipeline.results``), whose digest depends on none of them: two who compute the same get the same.

Facts rest as two objects: one that a computation has for itself, and the environment, which many share. The reference
``facts/DIGEST`` names those of the manifest DIGEST: they are written before the result can be found, and kept when it
is found again.
"""

import getpass
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from heimdall_assets.errors import HeimdallError, OutOfReach
from heimdall_assets.manifests import decode_canonical_json, encode_canonical_json
from heimdall_assets.media_types import JSON_MEDIA_TYPE
from heimdall_assets.stores.installation import describe_installation
from heimdall_assets.stores.machine import describe_machine
from heimdall_assets.stores.objects.interface import ObjectStore

FORMAT = "heimdall-facts/1"

FACTS = "facts/"
"""What the references of facts begin with; the digest of a manifest follows."""

ENVIRONMENT = "environment"
"""In the facts at rest: the digest of the environment."""

CACHES = "caches"
"""In the facts: reference of a cumulative table -> digest of the table that parts of the result were taken from.

What was computed for an earlier result is no input, for it would be computed to the same; where it was taken from is a
fact all the same. Not there where nothing was taken.
"""

PROFILE = "profile"
"""In the facts: the profile that the settings started from. Not there where they started from none."""


MEASURED = "measured"
"""In the facts: name -> what a clock said while the result was computed. Not there where nothing was measured."""


@dataclass(frozen=True)
class Origin:
    """Who or what had something computed.

    Attributes:
        started_by: a person, a sensor, a schedule, a page.
        is_person: whether it is a person's name; kept for ever, it is to be a pseudonym.
        profile: that the settings of the run started from, with its digest where it is somebody's own; None: from none.
        reason: in their words; None: they gave none.
        run_id: Dagster's run; None: made without Dagster.
    """

    started_by: str
    reason: str | None = None
    run_id: str | None = None
    is_person: bool = False
    profile: str | None = None


_origin: ContextVar[Origin | None] = ContextVar("origin", default=None)


@contextmanager
def originate(origin: Origin) -> Iterator[None]:
    """Say who has everything computed that is computed inside."""
    before = _origin.get()
    _origin.set(origin)
    try:
        yield
    finally:
        _origin.set(before)  # no token: Dagster may end a step's resources in another context


def name_originator() -> str | None:
    """Return who has things computed here, as ``originate`` was told: a person by pseudonym; None: nobody said."""
    origin = _origin.get()
    return None if origin is None else origin.started_by


_caches: ContextVar[dict[str, str] | None] = ContextVar("caches", default=None)


def note_cache(name: str, digest: str) -> None:
    """Say that the computation under way takes parts from the cumulative table with this digest.

    Args:
        name: of the reference that led to the table.
        digest: of the table as it was read; the reference may lead to another since.
    """
    caches = _caches.get()
    if caches is not None:
        caches[name] = digest


_measured: ContextVar[dict[str, Any] | None] = ContextVar("measured", default=None)


def note_measurement(name: str, figures: dict[str, Any]) -> None:
    """Keep figures (JSON values) of the computation under way, which another would not find again, among its facts."""
    measured = _measured.get()
    if measured is not None:
        measured[name] = figures


class Computation:
    """One computation, from its start on."""

    def __init__(self) -> None:
        _describe_installation()  # now: the code may be edited while it computes
        self._started_at = datetime.now(UTC)
        self._tick = time.monotonic()
        self._caches: dict[str, str] = {}
        self._measured: dict[str, Any] = {}

    @contextmanager
    def hear_notes(self) -> Iterator[None]:
        """Take note of what ``note_cache`` and ``note_measurement`` say inside."""
        tokens = _caches.set(self._caches), _measured.set(self._measured)
        try:
            yield
        finally:
            _caches.reset(tokens[0])
            _measured.reset(tokens[1])

    def describe(self) -> dict[str, Any]:
        """Return its facts so far, JSON values; ``environment`` in full."""
        return {
            "format": FORMAT,
            **_describe_origin(_origin.get() or Origin(name_user())),
            "started_at": self._started_at.isoformat(timespec="milliseconds"),
            "duration_s": round(time.monotonic() - self._tick, 3),
            **({CACHES: dict(self._caches)} if self._caches else {}),
            **({MEASURED: dict(self._measured)} if self._measured else {}),
            ENVIRONMENT: {**_describe_installation(), **describe_machine()},
        }


def _describe_origin(origin: Origin) -> dict[str, Any]:
    profile = {} if origin.profile is None else {PROFILE: origin.profile}
    return {"started_by": origin.started_by, "reason": origin.reason, "run_id": origin.run_id, **profile}


def keep_facts(objects: ObjectStore, manifest: str, facts: dict[str, Any]) -> None:
    """Store the facts of the computation that gave a manifest; those of whoever computed it first stay.

    Raises:
        StorageError: they could not be stored.
    """
    if read_facts(objects, manifest) is not None:
        return
    environment = objects.put_bytes(encode_canonical_json(facts[ENVIRONMENT]), JSON_MEDIA_TYPE)
    told = encode_canonical_json({**facts, ENVIRONMENT: environment.digest})
    objects.write_reference(_name(manifest), objects.put_bytes(told, JSON_MEDIA_TYPE).digest)


def read_facts(objects: ObjectStore, manifest: str) -> dict[str, Any] | None:
    """Return the facts of the computation that gave a manifest, as ``Computation.describe`` told them.

    None: nobody kept them, or they are damaged; a result stands without them.

    Raises:
        OutOfReach: nobody can say whether there are any.
    """
    try:
        digest = objects.read_reference(_name(manifest))
        if digest is None:
            return None
        facts: dict[str, Any] = decode_canonical_json(objects.read_bytes(digest))
        return {**facts, ENVIRONMENT: decode_canonical_json(objects.read_bytes(facts[ENVIRONMENT]))}
    except OutOfReach:
        raise
    except (HeimdallError, ValueError, KeyError, TypeError):
        return None


@cache
def _describe_installation() -> dict[str, Any]:
    """Return the installation as it was when this process first computed: what it imported then is what it runs."""
    return describe_installation()


def list_versions() -> dict[str, Any]:
    """Return Python, commit, lock and code at work, and the packages that a training is made with."""
    told = _describe_installation()
    packages = dict(line.split("==", 1) for line in told["packages"])
    named = ("heimdall-assets", "torch", "lightning", "timm", "numpy", "mlflow")
    kept = ("python", "git_sha", "git_dirty", "lock_sha256", "code_sha256")
    return {**{name: told[name] for name in kept}, **{name: packages[name] for name in named if name in packages}}


def name_user() -> str:
    """Return who uses this computer, as the system calls them."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's number without a name
        return "unknown"


def _name(manifest: str) -> str:
    return FACTS + manifest
