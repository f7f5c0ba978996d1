"""Parsing: the bytes of a request to receivers, JSON or a form whose parts are IQ files.

Belongs here: foreign JSON and forms, files of recordings in memory. Does not belong here: fields and their bounds
(``serving.bodies``), formats (``formats``), how large a request may be (``serving.bounds``).
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path, PurePosixPath

from pydantic import ValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from heimdall_assets.counts import say_count
from heimdall_assets.errors import UNUSABLE, HeimdallError, InvalidRecording
from heimdall_assets.formats import FORMATS, Format, Stated
from heimdall_assets.formats.interface import MAX_FREQUENCY_DIFFERENCE_HZ, WORDS
from heimdall_assets.formats.strict_json import parse_strict_json
from heimdall_assets.inference.files import find_format
from heimdall_assets.inference.receivers import Receiver
from heimdall_assets.physical import ClockClass, Recording
from heimdall_assets.pipeline.intake.handed_in import Handed, Told
from heimdall_assets.serving.bodies import MAX_RECEIVERS, AskedReceiver, AskedRecording, AskedSession
from heimdall_assets.specs import RecordingSpec
from heimdall_assets.web.refusals import Refusal

JSON, FORM = "application/json", "multipart/form-data"
SESSION_PART = "session"
MAX_JSON_BYTES, MAX_DEPTH = 1_000_000, 8
CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class SentFile:
    """A part that is a file: what its sender calls it, without folders, and its bytes."""

    name: str
    data: bytes


def parse_request(content_type: str, body: bytes) -> list[Receiver]:
    """Return the receivers that a request tells of.

    Args:
        content_type: as its header says, JSON or a form.
        body: all of it.

    Raises:
        Refusal: it is empty, or not what its header says.
        InvalidInput: it is, and a value cannot be used.
    """
    if not body:
        raise _refuse("found 0 bytes, expected a session, as JSON or in a form")
    if content_type.partition(";")[0].strip().lower() == JSON:
        return make_receivers(parse_session(body), {})
    said, files = _parse_form(content_type, body)
    return make_receivers(parse_session(said), files)


def parse_session(data: bytes) -> AskedSession:
    """Return the session that JSON says.

    Raises:
        Refusal: it is no JSON (400), or not of the schema (422).
    """
    try:
        value = parse_strict_json(data, max_bytes=MAX_JSON_BYTES, max_depth=MAX_DEPTH)
    except ValueError as error:
        raise _refuse(f"found no JSON that can be read ({error!s:.200}), expected a session") from None
    try:
        return AskedSession.model_validate(value)
    except ValidationError as error:
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, _say_first(error)) from None


def make_receivers(asked: AskedSession, files: Mapping[str, SentFile]) -> list[Receiver]:
    """Return the receivers of a session, each with the recording that its part holds.

    Raises:
        InvalidInput: a value cannot be used, a part is missing, or nobody names one.
    """
    named = [one.recording.part for one in asked.receivers if one.recording is not None]
    spare = sorted(set(files) - set(named))
    if spare:
        raise InvalidRecording(f"part {spare[0]!r:.60}: found no receiver whose recording it is, expected one")
    if len(set(named)) < len(named):
        twice = next(part for part in named if named.count(part) > 1)
        raise InvalidRecording(f"part {twice!r:.60}: found several receivers that name it, expected one")
    return [_make_receiver(one, files) for one in asked.receivers]


def _make_receiver(asked: AskedReceiver, files: Mapping[str, SentFile]) -> Receiver:
    values = asked.model_dump(exclude={"recording", "clock_class"})
    if asked.recording is None:
        return Receiver(**values, clock_class=asked.clock_class or ClockClass.NONE.value)
    sent = files.get(asked.recording.part)
    if sent is None:
        raise InvalidRecording(
            f"receiver {asked.name}: found no part {asked.recording.part!r:.60}, expected the file of its recording "
            f"({FORM})"
        )
    found = _choose_format(asked.recording, sent)
    if found.clock_class is not None and asked.clock_class not in (None, found.clock_class.value):
        raise InvalidRecording(
            f"receiver {asked.name}: found clock_class {asked.clock_class!r:.40}, expected none: a file of this format "
            f"({found.command}) says it"
        )
    clock = found.clock_class.value if found.clock_class is not None else asked.clock_class or ClockClass.NONE.value
    return Receiver(**values, clock_class=clock, recording=_decode(asked, sent, found))


def _choose_format(asked: AskedRecording, sent: SentFile) -> Format:
    name = asked.format or find_format(sent.name, sent.data)
    by_command = {known.command: known for known in FORMATS.values()} | FORMATS
    if name not in by_command:
        known = ", ".join(sorted(one.command for one in FORMATS.values()))
        raise InvalidRecording(f"{sent.name}: format {name!r:.40}, expected one of {known}")
    return by_command[name]


def _decode(asked: AskedReceiver, sent: SentFile, found: Format) -> Recording:
    assert asked.recording is not None
    said = asked.recording.model_dump(exclude={"part", "format"})
    if "frequency_hz" in found.may_state:
        said["frequency_hz"] = asked.frequency_hz
    stated = Stated(**said)
    _check_stated(stated, found, sent.name)
    told = Told(Handed(Path(sent.name)), found, stated, found.read_name(sent.name), None, found.clock_class)
    try:
        recording = told.decode(sent.data, RecordingSpec())
    except HeimdallError:
        raise
    except UNUSABLE as error:
        raise InvalidRecording(
            f"{sent.name}: cannot be read ({type(error).__name__}), expected a file of this format ({found.command})"
        ) from error
    centre = recording.centre_frequency_hz
    if centre is not None and abs(centre - asked.frequency_hz) > MAX_FREQUENCY_DIFFERENCE_HZ:
        raise InvalidRecording(
            f"{sent.name}: frequency {centre:.10g} Hz in the file, expected frequency_hz {asked.frequency_hz:.10g} of "
            f"receiver {asked.name}"
        )
    return recording


def _check_stated(stated: Stated, found: Format, name: str) -> None:
    """As files that are handed to a command: nothing is stated that they say themselves, all that they cannot is."""
    for attribute in stated.list_said():
        if attribute != "start_sigma_s" and attribute not in found.may_state:
            value = getattr(stated, attribute)
            raise InvalidRecording(
                f"{name}: found a stated {WORDS[attribute]} {value}, expected none: the file says it"
            )
    known = stated.or_else(found.read_name(name).stated)
    needed = [attribute for attribute in WORDS if attribute in found.must_state]
    missing = [WORDS[attribute] for attribute in needed if getattr(known, attribute) is None]
    if missing:
        raise InvalidRecording(
            f"{name}: found no {' and '.join(missing)}, expected it stated: a file of this format ({found.command}) "
            "carries none"
        )


def _parse_form(content_type: str, body: bytes) -> tuple[bytes, dict[str, SentFile]]:
    """Return the session of a form, as bytes of JSON, and its files by the names of their parts."""

    async def feed() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(body), CHUNK_BYTES):
            yield body[start : start + CHUNK_BYTES]

    parser = MultiPartParser(
        Headers({"content-type": content_type}),
        feed(),
        max_files=MAX_RECEIVERS + 1,
        max_fields=1,
        max_part_size=MAX_JSON_BYTES,
    )
    parser.spool_max_size = len(body) + 1  # in memory, whose bounds are kept; never in a file of the system
    try:
        return _take_parts(asyncio.run(parser.parse()).multi_items())
    except MultiPartException as error:
        raise _refuse(f"found no form that can be read ({error.message:.200}), expected {FORM}") from None
    finally:
        for file in parser._files_to_close_on_error:  # a part that was cut off is among no parts that it gives
            file.close()


def _take_parts(parts: Sequence[tuple[str, UploadFile | str]]) -> tuple[bytes, dict[str, SentFile]]:
    session: bytes | None = None
    files: dict[str, SentFile] = {}
    for name, value in parts:
        if name in files or (name == SESSION_PART and session is not None):
            raise _refuse(f"found part {name!r:.60} twice, expected it once")
        if name == SESSION_PART:
            session = value.file.read() if isinstance(value, UploadFile) else value.encode()
        elif isinstance(value, UploadFile):
            files[name] = SentFile(_strip_folders(value.filename or name), value.file.read())
        else:
            raise _refuse(f"found part {name!r:.60} without a file name, expected a file, or {SESSION_PART}")
    if session is None:
        raise _refuse(f"found no part {SESSION_PART!r}, expected the session as JSON")
    return session, files


def _strip_folders(name: str) -> str:
    kept = PurePosixPath(name.replace("\\", "/")).name[-200:]
    return "".join(one if one.isprintable() else "?" for one in kept) or "file"


def _refuse(line: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, f"body: {line}")


def _say_first(error: ValidationError) -> str:
    """Return the first of what is wrong in one line, and how much more there is."""
    found = error.errors(include_url=False, include_context=False)
    first = found[0]
    where = ".".join(str(part)[:60] for part in first["loc"][:4]) or SESSION_PART
    more = f" (and {say_count(len(found) - 1, 'more problem')})" if len(found) > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"{where}: found a field of no such name, expected none{more}"
    if first["type"] == "missing":
        return f"{where}: found none, expected one{more}"
    shown = repr(first["input"])
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    said = first["msg"][:1].lower() + first["msg"][1:]
    return f"{where}: found {shown}, expected other: {said}{more}"
