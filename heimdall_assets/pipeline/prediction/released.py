"""A released model read back: its ONNX file, opened, and the manifest that says what it was made from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from heimdall_assets.inference.released_graph import ReleasedGraph
from heimdall_assets.kinds import TRAINED_CHECKPOINT
from heimdall_assets.learning.receiver_model.feed import FRAME_FACT, describe_frame
from heimdall_assets.manifests import Manifest
from heimdall_assets.physical import Estimate
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.pipeline.stages.trained_checkpoint import read_learned
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.folder import ObjectStore


@dataclass(frozen=True)
class Released:
    """A released model: its version, its ONNX file, and the manifest of its export, from which its data follow."""

    version: str
    graph: ReleasedGraph
    manifest: Manifest

    def predict(self, sessions: SessionSet) -> Predictions:
        """Return what the ONNX file says, not what PyTorch would.

        Raises:
            CannotLocate: none of the sessions holds anything.
        """
        return self.graph.predict(sessions)

    def predict_one(self, session: SessionSet) -> Estimate:
        """Return what the ONNX file says of the only session, and beside it what its arrivals alone say.

        Raises:
            CannotLocate: the session holds nothing from which this model can tell a position.
        """
        return self.graph.predict_one(session)

    def predict_signals(self, sessions: SessionSet) -> dict[str, NDArray[Any]] | None:
        """Return what the ONNX file says of the signals; None: a model of positions alone."""
        return self.graph.predict_signals(sessions)


def read_released(stores: Stores, model: str) -> Released:
    """Return a released model by version, latest or alias; no torch is loaded.

    Raises:
        NotFound: there is no such model.
    """
    version = stores.releases.resolve(model)
    manifest = Manifest.decode(stores.objects.read_bytes(stores.releases.find_record(version)["manifest"]))
    facts = _read_frame(stores.objects, read_parent(stores.objects, manifest, TRAINED_CHECKPOINT))
    graph = ReleasedGraph(stores.releases.read_file(version, "model.onnx"), facts)
    return Released(version=version, graph=graph, manifest=manifest)


def _read_frame(objects: ObjectStore, checkpoint: Manifest) -> Mapping[str, str]:
    """Return the frame of a single_receiver model, which files of earlier exports do not say."""
    statistics, calibration = read_learned(objects, checkpoint)
    return {FRAME_FACT: describe_frame(statistics, calibration)} if "scale_m" in statistics else {}
