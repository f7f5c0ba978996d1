"""Collecting: what nobody needs any more is removed from the object store (garbage collection), or only counted.

Belongs here: the order in which that is safe beside runs that write. Does not belong here: what is needed (``needed``).

References go first, those that were not used for long and lead to nothing that is needed. From what is left, all that
is still reached is found anew, and only then do objects go. A run that finds a result in between has marked its
reference as used, or finds that it is gone and computes; one that stores an object again marks that.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Any

from heimdall_assets.errors import HeimdallError, OutOfReach
from heimdall_assets.manifests import RESULTS
from heimdall_assets.pipeline.keeping.needed import (
    ALIASES,
    Reach,
    copy_reach,
    find_owner,
    list_held_objects,
    reach_judged,
    reach_recordings,
    reach_references,
    reach_released,
    walk_roots,
)
from heimdall_assets.pipeline.work_pool import Progress
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.interface import USED_AGAIN_S, Resting
from heimdall_assets.stores.scratch import find_oldest_work


@dataclass(frozen=True)
class InUse:
    """What somebody outside the stores still works on.

    Attributes:
        manifests: digests of the latest results of assets, and of what runs that are under way were given.
        since: when the oldest run that is under way began, Unix seconds; None: none is.
    """

    manifests: Collection[str] = ()
    since: float | None = None


@dataclass(frozen=True)
class Collected:
    """What was removed, or would be.

    Attributes:
        used_before: what was used since then stayed, Unix seconds.
        objects: digest -> bytes, of those that went.
        references: names that went.
        kept: why -> how many objects stay for it; each counts once.
        young: how many that nothing hangs on stay because they were used lately.
        lost: references that lead to nothing that can be read.
    """

    used_before: float
    objects: dict[str, int] = field(default_factory=dict)
    references: list[str] = field(default_factory=list)
    kept: dict[str, int] = field(default_factory=dict)
    young: int = 0
    lost: int = 0

    def dump(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "num_bytes": sum(self.objects.values())}


def collect_garbage(stores: Stores, used_before: float, in_use: InUse, dry_run: bool, progress: Progress) -> Collected:
    """Return what was removed, or with ``dry_run`` would be; nothing that a release, hold, run or result needs goes.

    Args:
        stores: the opened stores.
        used_before: what was stored or used since then, Unix seconds, stays, whoever may need it.
        in_use: what Dagster knows.
        dry_run: remove nothing.
        progress: told how many objects were looked at.

    Raises:
        Refused: what a release or another root needs is not known; nothing was removed.
        StorageError: something could not be read or removed; trying again goes on.
    """
    objects, used_before = stores.objects, _find_limit(stores, used_before, in_use)
    roots = Reach(objects)
    reach_released(stores, roots)
    reach_judged(stores, roots)
    walk_roots(roots, in_use.manifests, "the latest results")
    walk_roots(roots, list_held_objects(stores), "holds")
    dead = _list_dead(stores, roots, used_before)
    gone = dict.fromkeys(name for name in dead if dry_run or objects.remove_reference(name, used_before))
    left = {one.name: one for one in objects.list_resting_references()}
    resting = {name: one for name, one in left.items() if name not in gone or not dry_run}
    alive = copy_reach(roots)
    reach_recordings(stores, alive)
    lost = reach_references(objects, alive, _read_targets(stores, resting))
    removed, young = {}, 0
    everything = list(objects.list_resting())
    for count, one in enumerate(everything, start=1):
        if one.name not in alive.why:
            if one.used_at < used_before and (dry_run or objects.remove_object(one.name, used_before)):
                removed[one.name] = one.size
            else:
                young += 1
        progress("objects looked at", count, len(everything))
    if removed and not dry_run and stores.edges.is_writable:
        stores.edges.forget(list(removed))
    kept: dict[str, int] = {}
    for name in {one.name for one in everything} & alive.why.keys():
        kept[alive.why[name]] = kept.get(alive.why[name], 0) + 1
    return Collected(used_before, removed, list(gone), dict(sorted(kept.items())), young, lost)


def _find_limit(stores: Stores, used_before: float, in_use: InUse) -> float:
    """Return since when what was used stays: longer than asked for where work is under way that began before."""
    begun = [moment for moment in (in_use.since, find_oldest_work(stores.scratch)) if moment is not None]
    return min([used_before, *(moment - USED_AGAIN_S for moment in begun)])


def _list_dead(stores: Stores, roots: Reach, used_before: float) -> list[str]:
    """Return the references that were not used for long and lead to nothing that is needed."""
    resting = {one.name: one for one in stores.objects.list_resting_references()}
    targets = _read_targets(stores, resting)
    old = {name for name, one in resting.items() if one.used_at < used_before}
    living = copy_reach(roots)
    young = {name: digest for name, digest in targets.items() if name.startswith(RESULTS) and name not in old}
    reach_references(stores.objects, living, young)
    dead = []
    for name in sorted(old - {ALIASES}):
        owner = find_owner(name)
        subject = owner if owner is not None else targets.get(name) if name.startswith(RESULTS) else None
        if subject not in living.manifests:
            dead.append(name)
    return dead


def _read_targets(stores: Stores, resting: dict[str, Resting]) -> dict[str, str]:
    """Return reference -> digest of those that can be read; a damaged one leads to nothing."""
    targets = {}
    for name in resting:
        try:
            digest = stores.objects.read_reference(name)
        except OutOfReach:
            raise
        except HeimdallError:
            continue
        if digest is not None:
            targets[name] = digest
    return targets
