"""A release as it lies in a folder, wherever it was copied to: its model, and with which settings that was trained.

Belongs here: reading a release's files against its own sums, settings as they were written. Does not belong here: who
signed it (``lineage.verify_release``), homes and ledgers (``stores.releases``), running the model
(``inference.released_graph``).
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heimdall_assets.errors import CorruptObject, InvalidInput
from heimdall_assets.lineage.release_files import SUMS_FILE, parse_sums
from heimdall_assets.stores.releases.folder import FolderFiles

MODEL_FILE, PROVENANCE_FILE = "model.onnx", "provenance.json"

COUNTS = frozenset({"n_fft", "hop", "num_mels", "num_frames", "num_lags", "max_samples"})
"""Settings that are whole numbers. Canonical JSON writes 6000.0 as 6000: the others are read as what they are."""


class Settings:
    """The settings of one spec, as attributes: what computes from a spec of ``specs`` computes the same from this.

    Args:
        name: of the spec.
        values: field -> value, as a release's provenance holds them.

    Examples:
        >>> settings = Settings("FeatureSpec", {"f_max_hz": 6000, "hop": 512, "frames": "pooled"})
        >>> settings.f_max_hz, settings.hop, settings.frames
        (6000.0, 512, 'pooled')
    """

    def __init__(self, name: str, values: dict[str, Any]) -> None:
        self._name = name
        for field, value in values.items():
            is_real = type(value) is int and field not in COUNTS
            setattr(self, field, float(value) if is_real else value)

    def __getattr__(self, field: str) -> Any:
        if field.startswith("_") or field.endswith("_s"):  # a clock class that nobody gave a sigma runs free
            raise AttributeError(field)
        raise InvalidInput(f"{self._name}.{field}: the release does not say it, expected a release of this version")


@dataclass(frozen=True)
class ReleaseFolder:
    """What a release's folder holds that prediction needs.

    Attributes:
        version: as the release calls itself.
        onnx: bytes of the model.
        specs: spec -> its fields: every number that decided the model.
    """

    version: str
    onnx: bytes
    specs: dict[str, dict[str, Any]]

    def read_settings(self, name: str) -> Settings:
        """Return the settings of a spec.

        Raises:
            CorruptObject: the release has no such spec.
        """
        if not isinstance(self.specs.get(name), dict):
            raise CorruptObject(f"release {self.version}: {PROVENANCE_FILE} has no {name}, expected its settings")
        return Settings(name, self.specs[name])


def read_release(folder: Path) -> ReleaseFolder:
    """Return a release, each file that is read compared with the release's own sums.

    Raises:
        NotFound: a file is not there.
        CorruptObject: a file is not what the sums say, or not what it should be.
        StorageError: one cannot be read.
    """
    folder = Path(folder).absolute()
    files = FolderFiles(folder.parent)
    sums = parse_sums(files.read(folder.name, SUMS_FILE))
    found = {}
    for name in (MODEL_FILE, PROVENANCE_FILE):
        found[name] = files.read(folder.name, name)
        if hashlib.sha256(found[name]).hexdigest() != sums.get(name):
            raise CorruptObject(f"{folder / name}: its SHA-256 is another than {SUMS_FILE} says, expected the same")
    try:
        provenance = json.loads(found[PROVENANCE_FILE])
        version, specs = str(provenance["model"]["version"]), dict(provenance["specs"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CorruptObject(f"{folder / PROVENANCE_FILE}: no provenance of a release ({error!r:.80})") from None
    return ReleaseFolder(version, found[MODEL_FILE], specs)
