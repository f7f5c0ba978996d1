"""Kinds of variables: how the text of an environment variable is read, and refused in one line.

Belongs here: one reader a kind, which names the variable, what was found and what was expected, and never repeats
what may be a password. Does not belong here: the variables (``variables``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from heimdall_assets.errors import InvalidSetting
from heimdall_assets.specs import RetentionPolicy, RetrainPolicy, Spec, describe_invalid
from heimdall_assets.stores.objects.addresses import check_database, parse_folder, read_scheme

LINEAGE_URL = "http://127.0.0.1:3001"
RAY_URL = "http://127.0.0.1:8265"

MLFLOW_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")
"""Where MLflow keeps runs; it has given up folders."""


@dataclass(frozen=True)
class VariableKind:
    """What a variable holds; stands in the annotation of its field.

    Attributes:
        name: for people.
        read: (text, name of the variable) -> value; raises ``InvalidSetting``.
        is_secret: the value may hold a password and is never shown.
    """

    name: str
    read: Callable[[str, str], Any]
    is_secret: bool = False


def choose(*choices: str) -> VariableKind:
    """Return the kind that holds one of some words."""
    expected = f"{', '.join(choices[:-1])} or {choices[-1]}"

    def read(text: str, variable: str) -> str:
        if text not in choices:
            raise InvalidSetting(f"{variable}: found {_show(text)}, expected {expected}")
        return text

    return VariableKind(expected, read)


def _show(text: str) -> str:
    """Return a value as a message may repeat it: not with a user's name and password."""
    return "an address with a user" if "@" in text else f"{text!r:.140}"


def _is_web_address(text: str, *schemes: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


def _read_page(text: str, variable: str) -> str:
    """Return an address below which pages are, without its last slash; every release shows it, so it names no user."""
    if not _is_web_address(text, "http", "https") or set("?#@") & set(text):
        raise InvalidSetting(f"{variable}: found {_show(text)}, expected an address such as {LINEAGE_URL}")
    return text.rstrip("/")


def _read_cluster(text: str, variable: str) -> str:
    """Return the address of a cluster, whose dashboard shows it to whoever may open that: it names no user."""
    if (text != "auto" and not _is_web_address(text, "http", "https", "ray")) or "@" in text:
        raise InvalidSetting(f"{variable}: found {_show(text)}, expected an address such as {RAY_URL}")
    return text


def _read_webhook(text: str, variable: str) -> str:
    if not _is_web_address(text, "http", "https"):
        raise InvalidSetting(f"{variable}: found something else, expected an address of http:// or https://")
    return text


def _read_mlflow(text: str, variable: str) -> str:
    scheme = read_scheme(text)
    if (scheme or text).partition("+")[0] not in MLFLOW_SCHEMES:
        found = f"an address of {scheme}://" if scheme else "no address"
        raise InvalidSetting(f"{variable}: found {found}, expected http://HOST, sqlite:///FILE or postgresql://...")
    return text


def _read_policy(kind: type[Spec], text: str, variable: str) -> Spec:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise InvalidSetting(f"{describe_invalid(variable, error)}; expected JSON of {kind.__name__}") from None


FOLDER = VariableKind("folder", parse_folder)
DATABASE = VariableKind("address of a database, may hold a password", check_database, is_secret=True)
MLFLOW = VariableKind("address of an MLflow store, may hold a password", _read_mlflow, is_secret=True)
WEBHOOK = VariableKind("URL, may hold a password", _read_webhook, is_secret=True)
PAGE = VariableKind("URL", _read_page)
CLUSTER = VariableKind("URL", _read_cluster)
SWITCH = VariableKind("on or off", lambda text, variable: choose("on", "off").read(text, variable) == "on")
POLICY = VariableKind("JSON of RetrainPolicy", partial(_read_policy, RetrainPolicy))
RETENTION = VariableKind("JSON of RetentionPolicy", partial(_read_policy, RetentionPolicy))
