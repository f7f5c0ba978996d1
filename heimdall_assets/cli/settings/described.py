"""What a profile comes to, in rows of text: its settings, what it holds beside them, what it needs.

Belongs here: words for people, for the command and for the page of the documentation. Does not belong here: reading a
profile (``profiles``), printing (``config``, ``profiles_page``).
"""

import json
from collections.abc import Iterator
from typing import Any

from heimdall_assets.counts import say_count
from heimdall_assets.profiles.reading import Read
from heimdall_assets.profiles.resolving import DEFAULT, Setting, resolve
from heimdall_assets.profiles.schema import Needs, list_profile_specs


def list_settings(read: Read, gpu_memory_gib: float | None) -> dict[str, Setting]:
    """Return every setting that a profile may set, as it comes to, defaults among them.

    Args:
        read: the profile.
        gpu_memory_gib: of the GPU that trains; None: on the machine that the profile asks for.
    """
    chosen = resolve(read, {}, gpu_memory_gib)
    return {
        path: chosen.get(path, Setting(field.get_default(call_default_factory=True), DEFAULT))
        for spec, cls in list_profile_specs().items()
        for name, field in cls.model_fields.items()
        for path in [f"{spec}.{name}"]
    }


def list_parts(read: Read) -> list[tuple[str, Any, str]]:
    """Return path, value and source of what a profile holds beside settings, in the order of its fields."""
    told = read.profile.model_dump(exclude={"settings", "name", "purpose", "extends", "needs"})
    return [(path, value, read.sources.get(path, DEFAULT)) for path, value in _flatten("", told, read)]


def say_needs(needs: Needs) -> str:
    """Return what a profile needs, for people."""
    gpus = f"{say_count(needs.gpus, 'GPU')} of {needs.gpu_memory_gib:g} GiB" if needs.gpus else "no GPU"
    return f"{gpus}, {needs.memory_gib:g} GiB of memory, {say_count(needs.cpus, 'processor')}"


def say(value: Any) -> str:
    """Return a value as JSON; the keys of a table are numbers, as in its file."""
    if isinstance(value, dict) and all(isinstance(key, float) for key in value):
        return f"{{{', '.join(f'{key:g}: {entry}' for key, entry in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


def _flatten(path: str, value: Any, read: Read) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict) or path in read.sources:  # a table is one thing
        yield path, value
        return
    for key, part in value.items():
        yield from _flatten(f"{path}.{key}".lstrip("."), part, read)
