"""Kinds of variables: how the text of an environment variable is read, and refused in one line.

Belongs here: one reader a kind, which names the variable, what was found and what was expected, and never repeats
what may be a password. Does not belong here: the variables (``variables``).
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import ValidationError

from heimdall_assets.errors import InvalidSetting
from heimdall_assets.profiles.reading import ENDINGS, list_profiles
from heimdall_assets.specs import (
    AcceleratorSpec,
    KubernetesSpec,
    MonitoringSpec,
    RetentionPolicy,
    RetrainPolicy,
    Spec,
    describe_invalid,
)
from heimdall_assets.stores.objects.addresses import (
    BucketAddress,
    Place,
    check_database,
    parse_folder,
    parse_place,
    read_scheme,
)

_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:]+\])(?::[0-9]{1,5})?")

_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,254}(?:@sha256:[0-9a-f]{64})?")
"""A name, a tag, a digest (OCI distribution specification 1.1), with a registry's host and port."""

_MAILBOX = re.compile(r"[A-Za-z0-9.!#$%*/=?^_`{|}~+-]+@[A-Za-z0-9.-]+")
"""What most addresses of e-mail are (RFC 5322, addr-spec without quotes)."""

IMAGE_NAME = "registry.example/heimdall-assets:1"
LINEAGE_URL = "http://127.0.0.1:3001"
RAY_URL = "http://127.0.0.1:8265"
S3_URL = "http://127.0.0.1:9000"

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


def _read_endpoint(text: str, variable: str) -> str:
    """Return the address of a service without its last slash; steps elsewhere are told it, so it names no user."""
    if not _is_web_address(text, "http", "https") or set("?#@") & set(text):
        raise InvalidSetting(f"{variable}: found {_show(text)}, expected an address such as {S3_URL}")
    return text.rstrip("/")


def _read_gigabytes(text: str, variable: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0.0 < number < math.inf:
        raise InvalidSetting(f"{variable}: found {_show(text)}, expected a number of gigabytes above 0")
    return number


def _read_hosts(text: str, variable: str) -> tuple[str, ...]:
    """Return names as a browser's Host header says them: with their port unless that is the scheme's own."""
    names = tuple(name.strip().lower() for name in text.split(",")) if text else ()
    for name in names:
        if not _HOST.fullmatch(name):
            raise InvalidSetting(
                f"{variable}: found {_show(name)}, expected names such as models.example,heimdall:3000"
            )
    return names


def _read_secret(text: str, variable: str) -> str:
    if len(text) < 32:
        raise InvalidSetting(f"{variable}: found {len(text)} characters, expected at least 32 that nobody can guess")
    return text


def _read_image(text: str, variable: str) -> str:
    """Return the name of a container image; runs in MLflow show it, so it holds no user."""
    if not _IMAGE.fullmatch(text):
        raise InvalidSetting(f"{variable}: found {_show(text)}, expected a name such as {IMAGE_NAME}")
    return text


def _read_pem(text: str, variable: str) -> str:
    if not text.lstrip().startswith("-----BEGIN "):
        raise InvalidSetting(f"{variable}: found something else, expected a private key in PEM, -----BEGIN first")
    return text


def _read_webhook(text: str, variable: str) -> str:
    if not _is_web_address(text, "http", "https"):
        raise InvalidSetting(f"{variable}: found something else, expected an address of http:// or https://")
    return text


def _read_mail(text: str, variable: str) -> str:
    """Return the address of a mail server with sender and receivers; it may hold a password, and is never repeated."""
    asked = parse_qs(urlsplit(text).query) if _is_web_address(text, "smtp", "smtps") else {}
    named = {name: values for name, values in asked.items() if len(values) == 1}
    people = [named.get("from", [""])[0], *named.get("to", [""])[0].split(",")]
    if asked.keys() != {"from", "to"} or not all(_MAILBOX.fullmatch(one) for one in people):
        raise InvalidSetting(
            f"{variable}: found something else, expected smtp://HOST?from=ADDRESS&to=ADDRESS,ADDRESS (smtps:// where "
            "all of it is encrypted)"
        )
    return text


def _read_witness(text: str, variable: str) -> tuple[Place | str, ...]:
    """Return folders, addresses of S3 and web addresses, which may hold a password."""
    return tuple(_read_one_witness(part.strip(), variable) for part in text.split(",")) if text else ()


def _read_one_witness(text: str, variable: str) -> Place | str:
    if read_scheme(text) in ("http", "https"):
        return _read_webhook(text, variable)
    if not text:
        raise InvalidSetting(f"{variable}: found an empty address, expected one on each side of a comma")
    return parse_place(text, variable)


def _read_openlineage(text: str, variable: str) -> str | Path:
    """Return a web address, which may hold a password, or a folder."""
    if read_scheme(text) in ("http", "https"):
        return _read_webhook(text, variable)
    return parse_folder(text, variable)


def _read_mlflow(text: str, variable: str) -> str:
    scheme = read_scheme(text)
    if scheme in ("http", "https") and not _is_web_address(text, scheme):
        raise InvalidSetting(f"{variable}: found no host, or a port that is none, expected http://HOST:PORT")
    if (scheme or text).partition("+")[0] not in MLFLOW_SCHEMES:
        found = f"an address of {scheme}://" if scheme else "no address"
        raise InvalidSetting(f"{variable}: found {found}, expected http://HOST, sqlite:///FILE or postgresql://...")
    return text


def _read_postgresql(text: str, variable: str) -> str:
    """Return the address of a PostgreSQL that Dagster opens itself, by SQLAlchemy's name of its driver."""
    scheme = text.partition("://")[0]
    if scheme not in ("postgresql", "postgresql+psycopg2"):
        found = f"an address of {scheme}://" if read_scheme(text) else "no address"
        raise InvalidSetting(f"{variable}: found {found}, expected postgresql://USER@HOST/NAME")
    return check_database(text, variable)


def _read_bucket(text: str, variable: str) -> BucketAddress:
    place = parse_place(text, variable)
    if not isinstance(place, BucketAddress):
        raise InvalidSetting(f"{variable}: found {text!r:.140}, expected s3://BUCKET/PREFIX")
    return place


def _read_policy(kind: type[Spec], text: str, variable: str) -> Spec:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise InvalidSetting(f"{describe_invalid(variable, error)}; expected JSON of {kind.__name__}") from None


def _read_file(text: str, variable: str) -> Path:
    """Return a path as an absolute one; whether a file is there is found when it is read."""
    if read_scheme(text) is not None or "\0" in text:
        raise InvalidSetting(f"{variable}: found {_show(text)}, expected a path of this machine")
    return Path(text).absolute()


def _read_profile(text: str, variable: str) -> str:
    """Return the name of a profile of the package, or the absolute path of a file that holds one."""
    if "/" in text or text.endswith(ENDINGS):
        return str(_read_file(text, variable))
    if text in list_profiles():
        return text
    raise InvalidSetting(f"{variable}: found {_show(text)}, expected {', '.join(list_profiles())} or a file of YAML")


def _read_offset(text: str, variable: str) -> str:
    from heimdall_assets.stores.database.raw.stated_receivers import parse_offset

    parse_offset(text, variable)
    return text


FOLDER = VariableKind("folder", parse_folder)
PLACE = VariableKind("folder or s3://BUCKET/PREFIX", parse_place)
GIGABYTES = VariableKind("GB, above 0", _read_gigabytes)
ENDPOINT = VariableKind("URL", _read_endpoint)
FILE = VariableKind("file", _read_file)
OFFSET = VariableKind("UTC or an offset", _read_offset)
DATABASE = VariableKind("address of a database, may hold a password", check_database, is_secret=True)
POSTGRESQL = VariableKind("address of a PostgreSQL database, may hold a password", _read_postgresql, is_secret=True)
BUCKET = VariableKind("s3://BUCKET/PREFIX", _read_bucket)
MLFLOW = VariableKind("address of an MLflow store, may hold a password", _read_mlflow, is_secret=True)
WEBHOOK = VariableKind("URL, may hold a password", _read_webhook, is_secret=True)
MAIL = VariableKind("smtp:// or smtps:// address, may hold a password", _read_mail, is_secret=True)
WITNESS = VariableKind("folders, s3://BUCKET/PREFIX, URLs, with a comma between two", _read_witness, is_secret=True)
OPENLINEAGE = VariableKind("URL, may hold a password, or folder", _read_openlineage, is_secret=True)
PAGE = VariableKind("URL", _read_page)
HOSTS = VariableKind("names, with a comma between two", _read_hosts)
PEM = VariableKind("private key in PEM", _read_pem, is_secret=True)
IMAGE = VariableKind("name of a container image", _read_image)
PASSPHRASE = VariableKind("passphrase", lambda text, _: text, is_secret=True)
SECRET = VariableKind("secret of 32 characters or more", _read_secret, is_secret=True)
CLUSTER = VariableKind("URL", _read_cluster)
SWITCH = VariableKind("on or off", lambda text, variable: choose("on", "off").read(text, variable) == "on")
POLICY = VariableKind("JSON of RetrainPolicy", partial(_read_policy, RetrainPolicy))
MONITORING = VariableKind("JSON of MonitoringSpec", partial(_read_policy, MonitoringSpec))
RETENTION = VariableKind("JSON of RetentionPolicy", partial(_read_policy, RetentionPolicy))
ACCELERATOR = VariableKind("JSON of AcceleratorSpec", partial(_read_policy, AcceleratorSpec))
PROFILE = VariableKind("name or file of a profile", _read_profile)
KUBERNETES = VariableKind("JSON of KubernetesSpec", partial(_read_policy, KubernetesSpec))
