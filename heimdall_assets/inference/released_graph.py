"""A released ONNX file, opened: sessions in, positions and signals out, whatever kind of model it is.

Belongs here: what is fed to which input, what the outputs mean for a session. Does not belong here: where the file lies
(``inference.release``), recordings (``inference.observing``), running batches (``learning.export.runtime``).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.errors import CannotLocate, CorruptObject
from heimdall_assets.learning.export.runtime import ONNX_BATCH, Arrays, Batches, open_graph, run_batches
from heimdall_assets.learning.receiver_model import feed as receiver_feed
from heimdall_assets.learning.session_model import feed as session_feed
from heimdall_assets.locating.estimates import take_estimate
from heimdall_assets.locating.tdoa import locate_by_delays
from heimdall_assets.physical import Estimate
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.signals.geodesy import compute_distance_m

SINGLE_RECEIVER, NETWORK = "single_receiver", "network"

FAR_SPREADS = 10.0
"""Receivers beyond this many root mean square distances of the training's sources heard none of them."""


class ReleasedGraph:
    """A model's ONNX file, opened once.

    Args:
        data: the file.
        facts: what it does not say itself, as ``metadata_props`` would; what it says wins.
        num_threads: of ONNX Runtime.

    Raises:
        CorruptObject: not one whole ONNX file of this project, or ONNX Runtime cannot run it.
    """

    def __init__(self, data: bytes, facts: Mapping[str, str] | None = None, num_threads: int = 1) -> None:
        self._session = open_graph(data, num_threads)
        self.facts: dict[str, str] = {**(facts or {}), **self._session.get_modelmeta().custom_metadata_map}
        self.kind = self.facts.get("kind", "")
        self._shapes: dict[str, list[Any]] = {item.name: list(item.shape) for item in self._session.get_inputs()}
        self._calibration: dict[str, Any] = {}
        if self.kind == SINGLE_RECEIVER:
            self._statistics, self._calibration = receiver_feed.read_frame(self.facts, self._shapes)
            self._outputs = list(receiver_feed.OUTPUTS)
        elif self.kind == NETWORK:
            self._statistics = session_feed.read_inputs(self._shapes)
            self._outputs = session_feed.name_outputs(self._statistics)
            self._check_inputs()
        else:
            raise CorruptObject(
                f"ONNX model of {len(data)} bytes: kind {self.kind!r:.40}, expected {SINGLE_RECEIVER} or {NETWORK}, "
                "as in a file that this program exported"
            )

    def _check_inputs(self) -> None:
        wanted = session_feed.name_inputs(self._statistics)
        if sorted(wanted) != sorted(self._shapes):
            raise CorruptObject(
                f"ONNX model: inputs {', '.join(self._shapes)}: expected {', '.join(wanted)}, as a network model has"
            )

    @property
    def has_signals(self) -> bool:
        """Whether it says what was sent, and when."""
        return bool(self._statistics.get("signal_tasks"))

    @property
    def reads_spectrograms(self) -> bool:
        """Whether it looks at spectrograms."""
        return self._statistics["feature_shape"] is not None

    def check_area(self, session: SessionSet) -> None:
        """Do nothing where the only session may be of the area of the training, as far as the file tells.

        A model of whole sessions is carried anywhere by delays. One of one receiver has its training's places alone.

        Raises:
            CannotLocate: each receiver is farther from the middle of the training than that can have reached.
        """
        if self.kind != SINGLE_RECEIVER:
            return
        latitude, longitude = self._statistics["centre_deg"]
        spread_m = float(np.hypot(*self._statistics["scale_m"]))
        away_m = compute_distance_m(latitude, longitude, session.receiver_latitude, session.receiver_longitude)
        nearest_m = float(np.nanmin(away_m, initial=np.inf))
        if FAR_SPREADS * spread_m < nearest_m < np.inf:
            raise CannotLocate(
                f"a {SINGLE_RECEIVER} model knows no places but those of its training: the nearest receiver is "
                f"{nearest_m / 1000.0:,.0f} km from the middle of its sources, expected one within "
                f"{FAR_SPREADS:g} times the {spread_m / 1000.0:,.0f} km that they spread"
            )

    def predict(self, sessions: SessionSet) -> Predictions:
        """Return one prediction per session; those that hold nothing to locate from are refused.

        Raises:
            CannotLocate: none of them holds anything.
            InvalidInput: spectrograms or correlations are of another shape than in training.
        """
        examples, outputs = self._run(sessions)
        if self.kind == NETWORK:
            return session_feed.collect_positions(sessions, examples, outputs)
        return receiver_feed.collect_sessions(sessions, examples, outputs, self._statistics, self._calibration)

    def predict_one(self, session: SessionSet) -> Estimate:
        """Return where the model puts the only session, and beside it what its arrivals alone say.

        Places between which arrivals do not decide are named, whichever of them the model chose.

        Raises:
            CannotLocate: the session holds nothing from which this model can tell a position.
        """
        return add_branches(self.predict(session), session)

    def predict_signals(self, sessions: SessionSet) -> dict[str, NDArray[Any]] | None:
        """Return the signal outputs, one row a session, NaN where nothing was demodulated; None: positions alone.

        Raises:
            CannotLocate: none of the sessions holds anything.
        """
        if not self.has_signals:
            return None
        return session_feed.collect_signals(sessions, *self._run(sessions))

    def _run(self, sessions: SessionSet) -> tuple[NDArray[np.int64], Arrays]:
        return run_batches(self._session, self._outputs, self._feed(sessions), len(sessions))[:2]

    def _feed(self, sessions: SessionSet) -> Batches:
        if self.kind == NETWORK:
            return session_feed.feed_sessions(sessions, ONNX_BATCH, self._statistics, whole=True)
        return receiver_feed.feed_receivers(sessions, ONNX_BATCH, self._statistics)


def add_branches(found: Predictions, session: SessionSet) -> Estimate:
    """Return the only prediction as an estimate, with the places between which its arrivals leave it open.

    Raises:
        CannotLocate: the session was refused.
    """
    alone = locate_by_delays(session, robust=True)
    if alone.refused is None or not alone.refused[0]:
        found = replace(found, branches=alone.branches, without_area_deg=alone.without_area_deg)
    return take_estimate(found, 0)
