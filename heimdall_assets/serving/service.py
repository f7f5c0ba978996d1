"""The answer to one request: receivers, the model that the ledger says now, its answer; for threads.

Belongs here: everything between a whole body and an answer. Does not belong here: HTTP (``serving.app``), bytes
(``serving.parsing``).
"""

import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from heimdall_assets.errors import CannotLocate, HeimdallError, StorageError
from heimdall_assets.inference import Answer, Predictor, Receiver
from heimdall_assets.serving.bounds import RETRY, Bounds, Room
from heimdall_assets.serving.metrics import Metrics
from heimdall_assets.serving.parsing import parse_request
from heimdall_assets.serving.predictors import Predictors
from heimdall_assets.serving.shadowing import Shadow, ShadowJob
from heimdall_assets.serving.standing import Ledger, Problems, Standing
from heimdall_assets.serving_rules import CHAMPION, Choice
from heimdall_assets.stores.home import Stores
from heimdall_assets.web.refusals import Refusal

_LOG = logging.getLogger(__name__)

NO_CHAMPION = "champion: found none, expected a release that heimdall models promote made one"

NUM_TRIES = 10
"""Rules name at most a handful of models; each that cannot be opened leaves the choice to the next."""


@dataclass(frozen=True)
class Given:
    """What a request comes to.

    Attributes:
        body: the answer as JSON values; None: the model refused.
        line: why it refused; empty: it did not.
        choice: of the model.
        job: for the shadow; None: there is none.
    """

    body: dict[str, Any] | None
    line: str
    choice: Choice
    job: ShadowJob | None


class Service:
    """A home that answers.

    Args:
        stores: of the home, opened.
        bounds: what it bears.
    """

    def __init__(self, stores: Stores, bounds: Bounds | None = None):
        self.stores = stores
        self.bounds = bounds or Bounds()
        self.metrics = Metrics()
        self.room = Room(self.bounds)
        self.ledger = Ledger(stores)
        self.predictors = Predictors(stores)
        self._problems = Problems()
        self.shadow = Shadow(
            self.predictors, self.metrics, self.bounds.max_shadow_jobs, lambda: self.room.num_requests == 0
        )

    def answer(self, caller: str | None, content_type: str, body: bytes) -> Given:
        """Return the answer to a whole request of a caller; None: nobody knows who.

        Raises:
            Refusal: there is none; the line says why.
            InvalidInput: a value cannot be used.
        """
        receivers = parse_request(content_type, body)
        choice, predictor = self._choose(caller, receivers)
        said: Answer | None = None
        line = ""
        try:
            said = predictor.locate(receivers)
        except CannotLocate as error:
            line = str(error)
        told = None if said is None else {"version": said.version, "chosen_by": choice.chosen_by, **said.describe()}
        job = None if choice.shadow is None else ShadowJob(receivers, choice.version, said, choice.shadow)
        return Given(told, line, choice, job)

    def _choose(self, caller: str | None, receivers: list[Receiver]) -> tuple[Choice, Predictor]:
        """Return the model that answers, opened; rules whose model cannot be opened are without effect."""
        names = {receiver.name for receiver in receivers}
        failed = self._find_unusable()
        for _ in range(NUM_TRIES):
            standing = self._read()
            if standing.rules.champion is None:
                raise _refuse_now(NO_CHAMPION)
            choice = standing.without(failed).choose(caller, names)
            try:
                return choice, self.predictors.take(choice.version)
            except StorageError as error:
                if choice.chosen_by == CHAMPION:
                    raise _refuse_now(str(error)) from error
                failed |= {choice.version}
        raise _refuse_now("models: found none that can be opened, expected one; the service's log says why")

    def _find_unusable(self) -> frozenset[str]:
        """Return the versions that no rule may name now: they cannot be opened, or learned from what is withdrawn."""
        return self.predictors.list_failed() | self._problems.versions

    def _read(self) -> Standing:
        try:
            return self.ledger.read()
        except HeimdallError as error:
            _LOG.warning("ledger: %s", error)
            raise _refuse_now("ledger: found none that answers, expected one; the service's log says why") from error

    def look_ahead(self) -> None:
        """Open every model that the ledger names now, so that nobody waits for it, and look whether rules may name it.

        For one thread, beside those that answer; models that nothing names any more are let go of.
        """
        standing = self.ledger.read()
        named = standing.list_named()
        for version in named:
            try:
                self.predictors.take(version)
            except StorageError:
                continue  # told where it was tried; rules that name it are without effect
        self.predictors.keep(named)
        self._problems = self._problems.look(self.stores, standing)

    def find_problem(self) -> str | None:
        """Return why nobody can be answered now, in one line; None: the champion can answer."""
        champion = self._read().rules.champion
        if champion is None:
            return NO_CHAMPION
        if champion not in self.predictors.list_open():
            return f"champion: found release {champion} not open yet, expected it to be"
        return None

    def describe_models(self) -> dict[str, Any]:
        """Return what ``/v1/models`` says."""
        standing = self._read().without(self._find_unusable())
        rules = standing.serving
        canary = rules.canary
        return {
            "champion": standing.rules.champion,
            "canary": None if canary is None else {"version": canary.model, "share": canary.share},
            "num_flags": len(rules.flags),
            "shadow": rules.shadow,
            "without_effect": [
                f"{one.change.said.rule} {one.change.said.version}: {_say_problem(one.change.said.rule)}"
                for one in standing.usable.judged
                if one.problem is not None
            ],
            "open": self.predictors.list_open(),
        }

    def find_caller(self, shown: str) -> str | None:
        """Return whose key it is that a request shows; None: none that counts.

        Raises:
            Refusal: the ledger cannot be asked.
        """
        try:
            key = self.stores.releases.find_service_key(shown)
        except HeimdallError as error:
            raise _refuse_now("ledger: found none that answers, expected one; the service's log says why") from error
        return None if key is None else key.owner


def _say_problem(rule: str) -> str:
    return f"this {rule} is without effect; heimdall models rules says why"


def _refuse_now(line: str) -> Refusal:
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, line, [RETRY])
