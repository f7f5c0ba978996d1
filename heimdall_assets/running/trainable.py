"""What must hold before a run that trains: campaigns that have sessions, and an approved one among them.

Looked at before anything slow is loaded, by a command and from Python alike.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from heimdall_assets.counts import say_count
from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import NotFound
from heimdall_assets.specs import DatasetSpec
from heimdall_assets.suggestions import suggest_name

if TYPE_CHECKING:
    from heimdall_assets.stores.home import Stores


def check_campaigns(stores: "Stores", campaigns: Iterable[str]) -> None:
    """Do nothing where every one of ``campaigns`` has sessions.

    Raises:
        NotFound: one has none; the message names the nearest one and those that there are.
    """
    known = sorted(stores.measurements.count_sessions())
    for campaign in campaigns:
        if campaign not in known:
            meant = suggest_name(campaign, {name: name for name in known})
            there = f"expected one of {', '.join(known)}" if known else "expected some, but there are no sessions yet"
            hint = f"did you mean {meant}? ({there})" if meant else there
            raise NotFound(f"campaign {campaign}: found no sessions, {hint}")


def check_trainable(stores: "Stores", dataset: DatasetSpec, home: str) -> None:
    """Do nothing where a run on ``dataset`` has at least one approved session.

    Args:
        stores: of the home.
        dataset: which sessions the run takes.
        home: what messages call the home.

    Raises:
        NotFound: a campaign has no sessions, or no session is approved; the message says how many wait for that.
    """
    check_campaigns(stores, dataset.campaigns)
    counts = stores.measurements.count_sessions(dataset)
    if any(row.get(ApprovalStatus.APPROVED) for row in counts.values()):
        return
    where = f"campaign {', '.join(dataset.campaigns)}" if dataset.campaigns else home
    pending = sum(row.get(ApprovalStatus.PENDING, 0) for row in counts.values())
    todo = (
        f"{say_count(pending, 'session')} pending: heimdall sessions approve ... --by NAME --reason TEXT"
        if pending
        else "none pending: heimdall demo or heimdall import adds some"
    )
    raise NotFound(f"{where}: found 0 approved sessions, expected at least 1 to train on ({todo})")
