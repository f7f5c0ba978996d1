"""Decision forms: what an approver says about the sessions that they looked at, taken to the ledger.

What is decided goes the way of ``heimdall sessions approve``: the same call, with the same reason, ledger and log, by
who is logged in. Each session comes with the mark of what was shown: what became another session since is refused.

Belongs here: reading a form, who may send one, and the answer. Does not belong here: pages (``session_pages``),
deciding (``stores.database.measurements``).
"""

from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs

from heimdall_assets.domain import ApprovalStatus, Role
from heimdall_assets.errors import HeimdallError, InvalidInput, NotFound, Refused
from heimdall_assets.pipeline.deciding.looking import find_following
from heimdall_assets.stores.database.marks import MARK_LENGTH
from heimdall_assets.stores.home import Stores
from heimdall_assets.web.refusals import Refusal
from heimdall_assets.web.result_pages import Page
from heimdall_assets.web.session_pages import LONGEST_ID, PAGE_LENGTH, Desk, draw_list, draw_look
from heimdall_assets.web.session_queries import LOOK, Asked, parse_asked
from heimdall_assets.web.session_views import LONGEST_REASON, Draft

DECISIONS = {"approve": ApprovalStatus.APPROVED, "reject": ApprovalStatus.REJECTED}
_ONCE = ("token", "decision", "reason", "waiver", "back", "from")
_MAX_FIELDS = len(_ONCE) + PAGE_LENGTH


@dataclass(frozen=True)
class Answer:
    """What a form is answered with: a page under a status, or an address to go on to."""

    status: HTTPStatus
    page: Page | None = None
    address: str = ""


@dataclass(frozen=True)
class _Said:
    """What a form says."""

    token: str
    decision: ApprovalStatus
    reason: str
    waiver: str
    seen: dict[str, str]
    asked: Asked
    is_look: bool


def check_role(role: Role) -> None:
    """Let pass who may decide; raises ``Refusal``."""
    if role != Role.APPROVER:
        expected = "reading alone" if role == Role.AUDITOR else f"it from an {Role.APPROVER}"
        raise Refusal(HTTPStatus.FORBIDDEN, f"{role}: found a decision about sessions, expected {expected}")


def answer_form(stores: Stores, body: bytes, desk: Desk) -> Answer:
    """Return the answer to a form, whose decision is in the ledger then; or the page again with why it is not.

    Raises:
        Refusal: whoever sent it may not decide, it is no form of ours, or says nothing that can be decided.
    """
    check_role(desk.visitor.role)
    said = parse_form(body)
    if desk.seals is None or not desk.seals.holds(said.token, desk.visitor):
        raise Refusal(HTTPStatus.FORBIDDEN, "form: found none that was made here for you lately, load its page again")
    try:
        count = _decide(stores, said, desk.who)
    except Refused as error:
        return _draw_again(stores, said, desk, HTTPStatus.CONFLICT, str(error))
    except NotFound as error:
        return _draw_again(stores, said, desk, HTTPStatus.CONFLICT, str(error))
    except InvalidInput as error:
        return _draw_again(stores, said, desk, HTTPStatus.BAD_REQUEST, str(error))
    done = f"{said.decision}-{count}"
    (first, *_) = said.seen
    following = find_following(stores, first, said.asked.wanted) if said.is_look else None
    if following is not None:
        return Answer(HTTPStatus.SEE_OTHER, address=said.asked.locate_look(following, done=done))
    return Answer(HTTPStatus.SEE_OTHER, address=said.asked.locate_list(done=done))


def parse_form(body: bytes) -> _Said:
    """Return what a form says.

    Raises:
        Refusal: it is none of ours.
    """
    try:
        found = parse_qs(body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        line = f"form: found something else, expected one of at most {_MAX_FIELDS} fields"
        raise Refusal(HTTPStatus.BAD_REQUEST, line) from None
    twice = next((name for name in _ONCE if len(found.get(name, ())) > 1), None)
    unknown = next((name for name in found if name not in (*_ONCE, "chosen")), twice)
    if unknown is not None:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"form: found {unknown!r:.60}, expected {', '.join(_ONCE)} once, chosen")
    once = {name: found.get(name, [""])[0] for name in _ONCE}
    if once["decision"] not in DECISIONS:
        line = f"decision: found {once['decision']!r:.60}, expected {' or '.join(DECISIONS)}"
        raise Refusal(HTTPStatus.BAD_REQUEST, line)
    for name in ("reason", "waiver"):
        if len(once[name]) > LONGEST_REASON:
            line = f"{name}: found {len(once[name])} characters, expected at most {LONGEST_REASON}"
            raise Refusal(HTTPStatus.BAD_REQUEST, line)
        if not once[name].isprintable():
            raise Refusal(HTTPStatus.BAD_REQUEST, f"{name}: found what no line of text holds, expected one line")
    try:
        asked = parse_asked(once["back"], LOOK)
    except NotFound as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"form: {error}") from None
    seen = dict(map(_parse_chosen, found.get("chosen", [])))
    is_look = once["from"] == "look"
    if is_look and len(seen) != 1:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"form: found {len(seen)} chosen, expected the session that was shown")
    return _Said(
        once["token"], DECISIONS[once["decision"]], once["reason"], once["waiver"].strip(), seen, asked, is_look
    )


def _parse_chosen(value: str) -> tuple[str, str]:
    mark, space, session_id = value.partition(" ")
    if not space or len(mark) != MARK_LENGTH or not 0 < len(session_id) <= LONGEST_ID or not session_id.isprintable():
        raise Refusal(HTTPStatus.BAD_REQUEST, f"form: found chosen {value!r:.60}, expected a mark and an id")
    return session_id, mark


def _decide(stores: Stores, said: _Said, who: str) -> int:
    if not said.seen:
        raise InvalidInput("no session is ticked: tick those that you decide about")
    if not said.reason.strip():
        raise InvalidInput("why: found nothing, expected a reason: the ledger keeps it")
    waiver = said.waiver if said.waiver and said.decision is ApprovalStatus.APPROVED else None
    return stores.measurements.decide(list(said.seen), said.decision, who, said.reason, waiver, seen=said.seen)


def _draw_again(stores: Stores, said: _Said, desk: Desk, status: HTTPStatus, line: str) -> Answer:
    draft = Draft(line, said.reason, said.waiver, frozenset(said.seen))
    if said.is_look:
        try:
            return Answer(status, draw_look(stores, next(iter(said.seen)), said.asked, desk, draft))
        except NotFound:
            pass  # it is gone: the list says so
        except HeimdallError as error:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
    return Answer(status, draw_list(stores, said.asked, desk, draft))
