"""What a longer fit may have otherwise than the shorter one that it goes on from; loads no torch.

Belongs here: which settings may change, and whether the longer fit comes out as if it had never been shorter. Does not
belong here: the shorter one's files (``kept``).
"""

from collections.abc import Mapping
from typing import Any

from heimdall_assets.errors import InvalidInput
from heimdall_assets.learning.fitting.schedule import LENGTHWISE

LENGTH, PATIENCE = "max_epochs", "early_stopping_patience"

_MEANT = {
    "model": "ModelSpec", "training": "TrainingSpec", "augmentation": "AugmentationSpec",
    "parents": "the approved sessions, or how they are split:",
}  # fmt: skip
"""Part of what is said of a fit -> what people call it."""


def check_same_fit(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Return nothing if a fit ``now`` is one ``then`` with more epochs, or with more patience.

    Args:
        then: ``model``, ``training``, ``augmentation`` as dumped and ``parents``, digests of the splits; any of them.
        now: the same parts.

    Raises:
        InvalidInput: something else differs, or there is less of the two.
    """
    for part, before in then.items():
        for name in sorted(before.keys() | now[part].keys()):
            was, found = before.get(name), now[part].get(name)
            if was == found or (part == "training" and name in (LENGTH, PATIENCE) and found > was):
                continue
            more = " or more" if part == "training" and name in (LENGTH, PATIENCE) else ""
            between = " " if part == "parents" else "."
            raise InvalidInput(
                f"resume: {_MEANT[part]}{between}{name}: found {found!r:.80}, expected {was!r:.80}{more}, as the "
                "training had that is to go on; start_from takes its weights alone"
            )


def is_exact(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether a fit that goes on comes out as one that was never shorter: its past knows no length."""
    if then["schedule"] in LENGTHWISE:
        return False
    return then["schedule"] != "plateau" or bool(then[PATIENCE] == now[PATIENCE])  # whose half is waited there
