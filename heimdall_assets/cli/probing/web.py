"""Web addresses that are told things: whether somebody answers there; nothing is told."""

from heimdall_assets.cli.probing.finding import Finding, State

ANSWER_S = 5.0


def probe_web(variable: str, url: str, where: str) -> Finding:
    """Return whether somebody answers at an address.

    Args:
        variable: that names it.
        url: it may hold a user, a password, or a path that is a secret.
        where: the same for people.
    """
    import requests

    try:
        answer = requests.head(url, timeout=ANSWER_S)
    except requests.RequestException as error:
        why = "does not answer in time" if isinstance(error, requests.Timeout) else "cannot be reached"
        return Finding(variable, State.WRONG, f"{where}: {why}", f"start the service there, or set {variable}")
    told = f"{where}: answers {answer.status_code} to HEAD; what it does with a post is not asked"
    return Finding(variable, State.OK, told)
