"""Witnessing: the log's checkpoint goes to a second place after each release and each promotion.

Belongs here: whom to tell, and that nobody's absence stops a release. Does not belong here: what is kept in a place,
and what disagrees with it (``pipeline.releases.witnesses``).

A place that was away is told of the next checkpoint, which covers all that came before: nothing has to be remembered.
"""

from dataclasses import dataclass, field

import dagster as dg

from heimdall_assets.defs.notifying import post_webhook
from heimdall_assets.defs.progress import notice
from heimdall_assets.errors import HeimdallError
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.keys import SigningKey
from heimdall_assets.stores.objects.addresses import Place

_LATER = "the next release or promotion posts it, or heimdall ledger post"


@dataclass(frozen=True)
class Posted:
    """What became of a checkpoint at one address.

    Attributes:
        where: the place; of a webhook, whose address may be a secret, which of them.
        is_new: whether it was posted now; else it was there already.
        problem: why it could not be posted; None: it was, or needed not be.
        unsigned: why it has no signature although a key is set; None: it has, or none is set.
    """

    where: str
    is_new: bool
    problem: str | None = None
    unsigned: str | None = None

    @property
    def is_worth_a_word(self) -> bool:
        """Whether somebody should know."""
        return self.problem is not None or (self.is_new and self.unsigned is not None)

    def describe(self) -> str:
        """Return one line."""
        if self.problem is not None:
            return f"checkpoint not posted to {self.where}: {self.problem}; {_LATER}"
        unsigned = f", not signed: {self.unsigned}" if self.is_new and self.unsigned is not None else ""
        return f"checkpoint {'posted to' if self.is_new else 'is already in'} {self.where}{unsigned}"


@dataclass(frozen=True)
class Witness:
    """The addresses of HEIMDALL_WITNESS, and how to post there.

    No resource with configuration: an address may hold a password, and Dagster's page would show it.

    Attributes:
        addresses: folders and buckets, which keep every checkpoint, and web addresses, which are told of it.
        s3_endpoint: of the S3 service; None: Amazon's.
    """

    addresses: tuple[Place | str, ...] = field(default=(), repr=False)
    s3_endpoint: str | None = None

    def post(self, stores: Stores, is_news: bool = True) -> list[Posted]:
        """Return what became of the checkpoint of now at each address.

        Args:
            stores: the opened stores.
            is_news: tell web addresses too, which keep nothing: a release or a promotion was made.
        """
        if not self.addresses:
            return []
        signer, unsigned = _find_signer(stores)
        posted = []
        for number, address in enumerate(self.addresses, 1):
            if isinstance(address, str) and not is_news:
                continue
            where = f"web address {number} of HEIMDALL_WITNESS" if isinstance(address, str) else str(address)
            try:
                is_new, problem = self._post(stores, address, where, signer), None
            except HeimdallError as error:
                is_new, problem = False, str(error)
            posted.append(Posted(where, is_new, problem, unsigned))
        return posted

    def tell(self, context: dg.AssetExecutionContext, stores: Stores, is_news: bool) -> None:
        """Post, and say what could not be in one line each: in the step's log, and to whoever listens."""
        for posted in self.post(stores, is_news):
            if posted.is_worth_a_word:
                context.log.warning(posted.describe())
                notice(posted.describe())

    def _post(self, stores: Stores, address: Place | str, where: str, signer: SigningKey | None) -> bool:
        from heimdall_assets.pipeline.releases.witnesses import keep_checkpoint, take_checkpoint
        from heimdall_assets.stores.witness_places import open_witness

        if not isinstance(address, str):
            return keep_checkpoint(stores, open_witness(address, self.s3_endpoint), signer)
        checkpoint, note = take_checkpoint(stores, signer)
        title = f"Checkpoint of log {checkpoint.log}, number of entries {checkpoint.size}"
        post_webhook(address, where)(title, note)
        return True


def _find_signer(stores: Stores) -> tuple[SigningKey | None, str | None]:
    """Return the key that signs checkpoints, and why there is none although one is set: they are kept all the same."""
    from heimdall_assets.pipeline.stages.model_release import find_signing_key

    try:
        return find_signing_key(stores), None
    except HeimdallError as error:
        return None, str(error)
