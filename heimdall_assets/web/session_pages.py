"""Session pages: sessions to decide about, one of them, and one recording as a picture, for whoever may look.

Belongs here: which page an address means. Does not belong here: forms that come back (``decision_forms``), texts
(``session_views``). A path is never a file's: it is the id of a session, or nothing.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from heimdall_assets.domain import Role
from heimdall_assets.errors import NotFound
from heimdall_assets.pipeline.deciding.looking import Look, choose_sessions, look_at, read_recording
from heimdall_assets.stores.computing import name_user
from heimdall_assets.stores.home import Stores
from heimdall_assets.web.queries import parse_query
from heimdall_assets.web.release_pages import find_uses_of
from heimdall_assets.web.result_pages import DRAWING, HTML, Page
from heimdall_assets.web.session_queries import LOOK, Asked, parse_asked
from heimdall_assets.web.session_views import Draft, Form, render_choice, render_look, say_why_not
from heimdall_assets.web.visitors import Seals, Visitor

SESSIONS = "/sessions"
PAGE_LENGTH = 50
PNG = "image/png"
LONGEST_ID = 128
_ONE = re.compile(r"/sessions/([^/]{1,400})(/signal)?")
_ESCAPES = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*")


@dataclass(frozen=True)
class Desk:
    """Where somebody sits who looks at sessions.

    Attributes:
        visitor: who it is.
        seals: of forms; None: nobody decides here.
    """

    visitor: Visitor
    seals: Seals | None = None

    @property
    def may_decide(self) -> bool:
        return self.visitor.role == Role.APPROVER and self.seals is not None

    @property
    def who(self) -> str:
        """Who decides, as the ledger is told: the login, or whom this computer says its user is."""
        return self.visitor.name if self.visitor.name is not None else name_user()

    def make_form(self, asked: Asked, reasons: list[str], is_writable: bool) -> Form | None:
        """Return what a form for decisions holds; None: there is none."""
        if not self.may_decide or self.seals is None or not is_writable:
            return None
        return Form(self.seals.make(self.visitor), self.who, asked.back, reasons)


def find_session_page(stores: Stores, path: str, query: str, desk: Desk) -> Page | None:
    """Return the list of sessions, the page of one or a picture; None: ``path`` is the address of none.

    Raises:
        NotFound: there is no such session, measurement or recording, or the query is none of the page's.
    """
    if path == SESSIONS:
        return draw_list(stores, parse_asked(query), desk, Draft())
    found = _ONE.fullmatch(path)
    if found is None:
        return None
    session_id = parse_id(found[1])
    if found[2]:
        return draw_picture(stores, session_id, parse_query(query, ("of",)).get("of", ""))
    return draw_look(stores, session_id, parse_asked(query, LOOK), desk, Draft())


def draw_list(stores: Stores, asked: Asked, desk: Desk, draft: Draft) -> Page:
    """Return the list of the sessions that are asked for."""
    choice = choose_sessions(stores, asked.wanted, asked.at, PAGE_LENGTH)
    form = desk.make_form(asked, choice.reasons, choice.is_writable)
    why_not = say_why_not(desk.visitor.role, choice.is_writable)
    return Page(HTML, render_choice(choice, asked, form, draft, why_not).encode())


def draw_look(stores: Stores, session_id: str, asked: Asked, desk: Desk, draft: Draft) -> Page:
    """Return the page of one session."""
    look = look_at(stores, session_id, asked.wanted)
    form = desk.make_form(asked, look.reasons, look.is_writable)
    why_not = say_why_not(desk.visitor.role, look.is_writable)
    return Page(HTML, render_look(look, asked, form, draft, (why_not, _list_uses(stores, look))).encode())


def _list_uses(stores: Stores, look: Look) -> list[str] | None:
    """Return the releases that a session went into; None: the index of lineage is behind."""
    if not look.history:
        return []  # nothing is learned from what nobody approved
    uses = find_uses_of(stores, str(look.session["id"]))
    return None if uses is None else [str(use["version"]) for use in uses["releases"]]


def draw_picture(stores: Stores, session_id: str, measurement_id: str) -> Page:
    """Return the spectrogram of one recording, drawn now."""
    from heimdall_assets.evaluation.figures.signal_picture import draw_signal

    recording = read_recording(stores, session_id, measurement_id)
    with DRAWING:
        return Page(PNG, draw_signal(recording))


def parse_id(written: str) -> str:
    """Return the id of a session as an address writes it.

    Raises:
        NotFound: it can be none.
    """
    try:
        if not _ESCAPES.fullmatch(written):
            raise ValueError
        text = unquote_to_bytes(written).decode("utf-8")
        if not text or not text.isprintable() or len(text) > LONGEST_ID:
            raise ValueError
    except ValueError:
        raise NotFound(f"session {written!r:.60}: expected the id of one, as the list's own links say it") from None
    return text
