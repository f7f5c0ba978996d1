"""What a released model answers of one session, and how it is written down.

Belongs here: the answer's parts. Does not belong here: how a position is described (``locating.estimates``), how it is
found (``inference.predictor``).
"""

from dataclasses import dataclass, field
from typing import Any

from heimdall_assets.locating.estimates import describe_estimate
from heimdall_assets.physical import Estimate


@dataclass(frozen=True)
class Answer:
    """Where a model puts a transmitter.

    Attributes:
        version: of the release that answered.
        estimate: position and covariance; ``estimate.ellipse(0.9)`` is its ellipse, ``alternatives`` the places between
            which arrivals do not decide.
        refused: what of the session could not be used, a line each.
        remarks: what makes the position doubtful, a line each.
        signal: what was sent and when, as the model and classical detection say it; None: a model of positions alone.
    """

    version: str
    estimate: Estimate
    refused: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    signal: dict[str, Any] | None = None

    def describe(self) -> dict[str, Any]:
        """Return the answer as JSON values, named as in ``heimdall predict --json``."""
        said = {"signal": self.signal, "remarks": self.remarks, "refused": self.refused}
        return {"version": self.version, **describe_estimate(self.estimate), **said}
