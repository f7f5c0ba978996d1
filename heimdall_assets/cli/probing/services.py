"""Services that answer over HTTP: an MLflow server, a Ray cluster. Asked for their version alone."""

from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit, urlunsplit

from heimdall_assets.cli.probing.finding import Finding, State, compare_clocks, judge_clock

ANSWER_S = 5.0


def probe_service(place: str, url: str, path: str, name: str) -> Finding:
    """Return how a service is that tells its version at ``path``.

    Args:
        place: the variable that names it.
        url: its address, which may hold a user and a password: neither is shown.
        path: below the address.
        name: of the service, for people.
    """
    import requests

    parts = urlsplit(url)
    shown = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    try:
        answer = requests.get(url.rstrip("/") + path, timeout=ANSWER_S, headers=_read_token(name))
    except requests.RequestException as error:
        why = "does not answer in time" if isinstance(error, requests.Timeout) else "cannot be reached"
        return Finding(place, State.WRONG, f"{shown}: {why}", f"start {name} there, or set {place}")
    if answer.status_code in (401, 403):
        return Finding(place, State.WRONG, f"{shown}: asks for a login ({answer.status_code})", _ADVICE[name])
    if not answer.ok:
        advice = f"set {place} to the address of {name}"
        return Finding(place, State.WRONG, f"{shown}: answers {answer.status_code} to {path}", advice)
    told = [shown, f"{name} {_read_version(answer.text)}"]
    if "Date" not in answer.headers:
        return Finding(place, State.OK, ", ".join(told))
    skew_s, clock = compare_clocks(parsedate_to_datetime(answer.headers["Date"]))
    return judge_clock(place, [*told, clock], skew_s)


def _read_token(name: str) -> dict[str, str]:
    import os

    token = os.environ.get("RAY_AUTH_TOKEN") if name == "Ray" else None
    return {"Authorization": f"Bearer {token}"} if token else {}


def _read_version(text: str) -> str:
    """Return the version in an answer, which is that alone (MLflow) or JSON with ``ray_version``."""
    import json

    try:
        said = json.loads(text)
    except ValueError:
        said = text
    version = said.get("ray_version", "of unknown version") if isinstance(said, dict) else said
    return f"{version!s:.40}".strip()


_ADVICE = {
    "MLflow": "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    "Ray": "set RAY_AUTH_TOKEN",
}
