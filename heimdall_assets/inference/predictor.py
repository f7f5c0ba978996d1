"""The predictor: a release, opened once, and every question that can be put to it.

Belongs here: one session, or many, to answers and refusals. Does not belong here: files, servers, homes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from heimdall_assets.errors import CannotLocate, CorruptObject, InvalidInput
from heimdall_assets.inference.answers import Answer
from heimdall_assets.inference.observing import Wanted, observe_recordings
from heimdall_assets.inference.receivers import SESSION, Receiver, make_session, sort_receivers
from heimdall_assets.inference.release import read_release
from heimdall_assets.inference.released_graph import ReleasedGraph
from heimdall_assets.inference.told_signals import tell_signals
from heimdall_assets.locating.reach import remark_reach
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.signals.observation import say_lacks

VERSION_FACT = "heimdall.version"


class Predictor:
    """A released model that answers.

    Args:
        release: folder of the release, wherever it was copied to.
        num_threads: of ONNX Runtime.

    Raises:
        NotFound: a file of the release is not there.
        CorruptObject: a file is not what the release's sums say, or no model of this project.

    Examples:
        Each receiver at a known place, with what it measured::

            predictor = Predictor("v1.0.0")
            answer = predictor.locate([Receiver(name="A", latitude=45.0, longitude=7.0, ...), ...])
            answer.estimate.latitude, answer.estimate.longitude, answer.estimate.ellipse(0.9), answer.refused
    """

    def __init__(self, release: str | Path, num_threads: int = 1) -> None:
        self.release = read_release(Path(release))
        self.graph = ReleasedGraph(self.release.onnx, num_threads=num_threads)
        stamped = self.graph.facts.get(VERSION_FACT)
        if stamped != self.release.version:
            raise CorruptObject(
                f"release {self.release.version}: its model says {VERSION_FACT} {stamped!r:.40}, expected the same"
            )

    @property
    def version(self) -> str:
        """Which release answers."""
        return self.release.version

    def locate(self, receivers: Sequence[Receiver]) -> Answer:
        """Return where the model puts the one transmission that these receivers heard.

        Raises:
            InvalidInput: no receiver, one twice, or arrivals from two zeros.
            CannotLocate: they hold nothing from which this model can tell a position; it says what was refused.
        """
        receivers = sort_receivers(receivers)
        wanted = Wanted(spectrograms=self.graph.reads_spectrograms, tracks=self.graph.has_signals)
        observed, lacks = observe_recordings(receivers, self.release, wanted)
        timing: Any = self.release.read_settings("TimingSpec")
        session = make_session(receivers, observed, timing)
        refused = say_lacks(lacks)
        try:
            return self.answer(session, refused)
        except CannotLocate as error:
            said = str(error).replace(f"session {SESSION}", "the session")
            raise CannotLocate("; ".join([said, *refused])) from error

    def answer(self, session: SessionSet, refused: Sequence[str] = ()) -> Answer:
        """Return where the model puts the only session of a set, assembled by somebody else.

        Args:
            session: one session.
            refused: what of it could not be used, a line each.

        Raises:
            InvalidInput: it is not one session.
            CannotLocate: it holds nothing from which this model can tell a position.
        """
        if len(session) != 1:
            raise InvalidInput(f"sessions: found {len(session)}, expected 1; predict answers many")
        self.graph.check_area(session)
        estimate = self.graph.predict_one(session)
        signal = tell_signals(self.graph.predict_signals(session), session)
        places = [session.receiver_latitude, session.receiver_longitude, session.receiver_altitude_m]
        names = [str(name) for name in session.station_id]
        remarks = remark_reach(estimate, np.stack(places, axis=1), session.frequency_hz, names)
        return Answer(self.version, estimate, list(refused), remarks, signal)

    def predict(self, sessions: SessionSet) -> Predictions:
        """Return one prediction per session of a set; those that hold nothing to locate from are refused.

        Raises:
            CannotLocate: none of them holds anything.
        """
        return self.graph.predict(sessions)
