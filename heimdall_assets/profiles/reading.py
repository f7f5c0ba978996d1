"""Reading: a profile of the package or in somebody's file, with what it extends, and everything that is wrong in it.

Belongs here: YAML to words, and which field comes from which profile. Does not belong here: what a profile comes to
beside other settings (``resolving``).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from heimdall_assets.counts import say_count
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.manifests import compute_json_digest
from heimdall_assets.profiles.problems import Problem, find_problems, split_profile
from heimdall_assets.profiles.schema import Profile, list_profile_specs
from heimdall_assets.suggestions import suggest_name

FOLDER = Path(__file__).parent
ENDINGS = (".yaml", ".yml")
_LARGEST_BYTES = 100_000
_WHOLE = ("batch_size",)
"""Tables that a profile replaces as a whole: of two half ones nobody knows which entry holds."""


@dataclass(frozen=True)
class Read:
    """A profile as it was read.

    Attributes:
        checked: the profile, with what it extends in it; None: something is wrong with it.
        problems: everything that is.
        sources: path of a field -> the profile that says it.
        file: where it stands; None: in the package.
    """

    checked: Profile | None
    problems: tuple[Problem, ...]
    sources: Mapping[str, str]
    file: Path | None = None

    @property
    def profile(self) -> Profile:
        """The profile, where nothing is wrong with it."""
        assert self.checked is not None, self.problems
        return self.checked

    @property
    def title(self) -> str:
        """The name of a profile of the package; of another one its digest too, for everybody may call theirs alike."""
        if self.file is None:
            return self.profile.name
        digest = compute_json_digest(self.profile.model_dump(mode="json"))
        return f"{self.profile.name} (sha256:{digest[:12]})"


def list_profiles() -> tuple[str, ...]:
    """Return the names of the package's profiles, the one that asks least of a machine last."""
    return ("hpc", "workstation", "laptop", "embedded")


def read_profile(named: str) -> Read:
    """Return the profile that somebody named, which holds.

    Args:
        named: one of the package's, or a file.

    Raises:
        InvalidSetting: there is none of that name, or something is wrong with it: the first such thing, and how many
            more there are.
    """
    read = check_profile(named)
    if read.problems:
        more = say_count(len(read.problems) - 1, "more problem")
        hint = f" (and {more}: heimdall config validate {named})" if len(read.problems) > 1 else ""
        raise InvalidSetting(f"profile {named}: {read.problems[0]}{hint}")
    return read


def check_profile(named: str) -> Read:
    """Return a profile, or everything that is wrong with it.

    Raises:
        InvalidSetting: there is none of that name, or it is no YAML.
    """
    return _read_packaged(named) if named in list_profiles() else _check_file(_find_file(named, None), ())


@cache
def _read_packaged(name: str) -> Read:
    return _check_file(FOLDER / f"{name}.yaml", ())


def _find_file(named: str, beside: Path | None) -> Path:
    """Return the file that holds a profile, one of the package's or somebody's own."""
    if named in list_profiles():
        return FOLDER / f"{named}.yaml"
    file = Path(named) if beside is None else beside.parent / named
    if file.is_file():
        return file
    what = f"profile {named}" if beside is None else f"{beside}: extends {named}"
    if file.exists():
        raise InvalidSetting(f"{what}: found no regular file, expected YAML")
    meant = None if file.suffix in ENDINGS else suggest_name(named, {name: name for name in list_profiles()})
    known = f"{', '.join(list_profiles())} or a file of YAML"
    raise InvalidSetting(f"{what}: found none, " + (f"did you mean {meant}?" if meant else f"expected {known}"))


def _check_file(file: Path, above: tuple[Path, ...]) -> Read:
    raw, sources = _merge(file, above)
    problems = find_problems(raw, str(file))
    profile = None if problems else Profile.model_validate(split_profile(raw))
    return Read(profile, tuple(problems), sources, None if file.parent == FOLDER else file)


def _merge(file: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the fields of a file over those of what it extends, and who says each of them."""
    here = file.resolve()
    if here in above:
        circle = " -> ".join(path.name for path in (*above, here))
        raise InvalidSetting(f"{file}: extends itself ({circle}), expected an end of the chain")
    own = load_profile_yaml(file)
    name = own.get("name") if isinstance(own.get("name"), str) else file.name
    base, sources = dict[str, Any](), dict[str, str]()
    extends = own.get("extends")
    if isinstance(extends, str) and extends:
        base, sources = _merge(_find_file(extends, file), (*above, here))
        # Who it is, and what for, each profile says itself.
        base = {key: value for key, value in base.items() if key not in ("name", "purpose", "extends")}
    training = own.get("TrainingSpec")
    if isinstance(training, dict) and "batch_size" in training:
        base.pop("batch_size", None)  # a number that somebody chose is not looked up
    merged = _overlay(base, own, "", (f"profile {name}", sources))
    return merged, sources


def _overlay(base: Any, own: Any, path: str, told: tuple[str, dict[str, str]]) -> Any:
    """Return ``own`` over ``base``, field by field, and note who says each."""
    who, sources = told
    if not isinstance(own, dict) or path in _WHOLE:
        sources[path] = who
        return own
    base = base if isinstance(base, dict) else {}
    merged = dict(base)
    for key, value in own.items():
        merged[key] = _overlay(base.get(key), value, f"{path}.{key}".lstrip("."), told)
    return merged


class _Loader(yaml.SafeLoader):
    """YAML in which no key stands twice and 1e-3 is a number, as YAML 1.2 has it."""


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set[str]()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"found {key.value} twice", key.start_mark)
        seen.add(str(key.value))
    return dict(yaml.SafeLoader.construct_mapping(loader, node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def load_profile_yaml(file: Path) -> dict[str, Any]:
    """Return what a file of YAML holds.

    Raises:
        InvalidSetting: it is too large, no text, no YAML, holds a key twice, or no mapping.
    """
    with file.open("rb") as opened:
        data = opened.read(_LARGEST_BYTES + 1)
    if len(data) > _LARGEST_BYTES:
        raise InvalidSetting(f"{file}: found more than {_LARGEST_BYTES} bytes, expected a profile")
    try:
        loaded = yaml.load(data.decode("utf-8"), _Loader)  # a SafeLoader: it makes plain values alone
    except UnicodeDecodeError:
        raise InvalidSetting(f"{file}: found bytes that are no text, expected YAML") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark is not None else ""
        why = getattr(error, "problem", None) or " ".join(str(error).split())[:100] or "unreadable"
        raise InvalidSetting(f"{file}: found no YAML that counts{line} ({why})") from None
    if not isinstance(loaded, dict):
        raise InvalidSetting(f"{file}: found {type(loaded).__name__}, expected a mapping from fields to values")
    return {str(key): value for key, value in loaded.items()}


def list_paths(read: Read) -> list[str]:
    """Return the paths of all settings that a profile sets, ``Spec.field``."""
    return [f"{spec}.{field}" for spec in list_profile_specs() for field in read.profile.settings.get(spec, {})]
