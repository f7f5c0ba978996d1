"""Weights files: the bytes that a backbone starts from, of a local file or of timm's hub.

Belongs here: reading, fetching, and the one line that says why there are none. Does not belong here: what the bytes
mean (``learning.backbone``). Of the hub only ``model.safetensors`` is taken, never a pickle.
"""

from pathlib import Path

from heimdall_assets.errors import MissingDependency
from heimdall_assets.libraries import silence_libraries
from heimdall_assets.stores.objects.files import describe
from heimdall_assets.stores.objects.regular_files import check_regular_file

HUB_FILE = "model.safetensors"


def read_weights_file(path: Path) -> bytes:
    """Return the bytes of the file that ``ModelSpec.weights_file`` names.

    Raises:
        MissingDependency: it cannot be read, or is no regular file.
    """
    return _read(path, f"weights_file {str(path)!r}")


def read_hub_weights(architecture: str, source: str | None, fetch: bool = True) -> bytes:
    """Return the weights of one of timm's architectures: those that this machine fetched once, else from timm's hub.

    What was fetched lies in the cache that every program with this hub's client shares (``HF_HOME``).

    Args:
        architecture: timm's name without a tag, such as ``convnext_atto``, for messages.
        source: repository of the hub, ``@`` and a revision behind it where one is pinned; None: timm knows none.
        fetch: ask the hub where they were not fetched yet.

    Raises:
        MissingDependency: they were not fetched yet, and the hub was not asked or did not give them.
    """
    silence_libraries()
    # Slow to load, and needed by nobody who starts from weights of his own or from none.
    from huggingface_hub import try_to_load_from_cache

    if not source:
        raise MissingDependency(f"pretrained weights of {architecture}: timm knows none on its hub; {_INSTEAD}")
    repository, _, revision = source.partition("@")
    found = try_to_load_from_cache(repository, HUB_FILE, revision=revision or None)
    if not isinstance(found, str):  # it has also an object that means "was asked for and is not there"
        if not fetch:
            raise MissingDependency(f"pretrained weights of {architecture}: were not fetched yet")
        found = _fetch(architecture, repository, revision or None)
    return _read(Path(found), f"pretrained weights of {architecture}")


def _read(path: Path, what: str) -> bytes:
    check_regular_file(path, what, MissingDependency)
    try:
        return path.read_bytes()
    except OSError as error:
        raise MissingDependency(f"{what}: {describe(error)}: expected a local .safetensors file") from error


_INSTEAD = "without network set ModelSpec.weights_file to a local .safetensors file"


def _fetch(architecture: str, repository: str, revision: str | None) -> str:
    from huggingface_hub import hf_hub_download

    try:
        return hf_hub_download(repository, HUB_FILE, revision=revision)
    except Exception as error:  # the hub's client raises many unrelated types when there is no network
        raise MissingDependency(
            f"pretrained weights of {architecture}: {HUB_FILE} of {repository} could not be fetched from timm's hub "
            f"({type(error).__name__}); {_INSTEAD}"
        ) from error
