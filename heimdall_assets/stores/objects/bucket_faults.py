"""Faults of an S3 service, or of the way there, as our errors: one clear line that names no key.

Belongs here: what a library's error means, and the one process in which requests can be made. Does not belong here:
the requests (``buckets``).
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from heimdall_assets.errors import NotFound, OutOfReach, StorageError

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")

_MEANINGS = (
    ("Connection refused", "connection refused"),
    ("dns error", "no such host"),
    ("kind: Timeout", "timed out"),
    ("Connection reset", "connection reset"),
    ("response body error", "the connection was cut"),
    ("connection closed", "the connection was cut"),
    ("error sending request", "no connection"),
)
"""Words of the library, and ours."""

_OF_ONE_OBJECT = ("AccessDenied", "InvalidObjectState", "KMS")
"""Codes that may be said of one object among many that can be had: a policy, an archive, a key that encrypts it."""

_NO_BUCKET = "NoSuchBucket"

_asked_in: list[int] = []
"""The process whose threads make requests: the first one of this process's line that made any."""


@contextmanager
def tell_faults(what: str, done: str) -> Iterator[None]:
    """Turn what the library raises into our errors; its own words repeat key ids and signatures.

    Args:
        what: address of the object.
        done: what was to be done with it: stored, read.

    Raises:
        NotFound: nothing is there.
        OutOfReach: the service could not be reached, has no such bucket, or refused whatever it is asked for; or this
            process was forked from one that asked, whose threads it lacks: the library would wait for them for ever.
        StorageError: it refused this object.
    """
    from obstore.exceptions import BaseError

    if _asked_in and _asked_in[0] != os.getpid():
        raise OutOfReach(f"{what}: found a process forked from one that spoke to S3, expected a fresh one (spawn)")
    _asked_in[:] = [os.getpid()]
    try:
        yield
    except (BaseError, PermissionError, TimeoutError, OSError) as error:
        fault = describe_fault(error)
        if _NO_BUCKET in fault:  # nothing is known of what lies in one whose name may be mistyped
            raise OutOfReach(
                f"{what}: could not be {done} (found no bucket {what.split('/')[2]}, expected one)"
            ) from None
        if isinstance(error, FileNotFoundError):
            raise NotFound(f"{what}: found nothing") from None
        kind = StorageError if any(code in fault for code in _OF_ONE_OBJECT) else OutOfReach
        raise kind(f"{what}: could not be {done} ({fault})") from None


def describe_fault(error: BaseException) -> str:
    """Return what a service or the way there answered: status and code where there are any, never keys."""
    text = str(error)
    status, code = _STATUS.search(text), _CODE.search(text)
    if status or code:
        return " ".join(found[1] for found in (status, code) if found)
    for words, meaning in _MEANINGS:
        if words in text:
            return meaning
    return type(error).__name__
