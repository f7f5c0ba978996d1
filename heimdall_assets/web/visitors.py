"""Visitors: who asks, and the seal by which a form of ours is told from one that somebody else made.

Belongs here: a visitor, seals. Does not belong here: how somebody becomes one (``login``), what a role may (``roles``,
``decision_forms``).
"""

import hashlib
from dataclasses import dataclass

from itsdangerous import BadData, URLSafeTimedSerializer

from heimdall_assets.domain import Role

SEAL_S = 12 * 3600
"""As long as a login holds."""


@dataclass(frozen=True)
class Visitor:
    """Who asks.

    Attributes:
        role: what they may.
        name: whom they logged in as; None: nobody is asked, who asks is at this machine.
    """

    role: Role
    name: str | None = None


class Seals:
    """What a form of ours carries, of whom it was made for: neither another site nor another user has one."""

    def __init__(self, secret: str):
        self._signer = URLSafeTimedSerializer(
            secret, salt="heimdall form", signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256}
        )

    def make(self, visitor: Visitor) -> str:
        """Return the seal of a form for ``visitor``."""
        return str(self._signer.dumps([visitor.name, str(visitor.role)]))

    def holds(self, seal: str, visitor: Visitor) -> bool:
        """Return whether ``seal`` was made for ``visitor``, and lately."""
        try:
            return bool(self._signer.loads(seal, max_age=SEAL_S) == [visitor.name, str(visitor.role)])
        except BadData:
            return False
