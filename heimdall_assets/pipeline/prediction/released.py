"""A released model read back: its ONNX file, and the checkpoint and manifest that say how to feed it."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from heimdall_assets.kinds import TRAINED_CHECKPOINT
from heimdall_assets.locating.estimates import take_estimate
from heimdall_assets.locating.tdoa import locate_by_delays
from heimdall_assets.manifests import Manifest
from heimdall_assets.physical import Estimate
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.pipeline.stages.trained_checkpoint import load_checkpoint
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.stores.home import Stores

if TYPE_CHECKING:
    from heimdall_assets.learning.fitting.fitted import FittedModel


@dataclass(frozen=True)
class Released:
    """A released model: its version, its ONNX file, and the manifest of its export, from which its data follow."""

    version: str
    onnx: bytes
    manifest: Manifest
    fitted: "FittedModel"

    def predict(self, sessions: SessionSet) -> Predictions:
        """Return what the ONNX file says, not what PyTorch would."""
        from heimdall_assets.learning.export.onnx_file import predict_onnx

        return predict_onnx(self.fitted, self.onnx, sessions)

    def predict_one(self, session: SessionSet) -> Estimate:
        """Return what the ONNX file says of the only session, and beside it what its arrivals alone say.

        Places between which arrivals do not decide are named, whichever of them the model chose.

        Raises:
            CannotLocate: the session holds nothing from which this model can tell a position.
        """
        found = self.predict(session)
        alone = locate_by_delays(session, robust=True)
        if alone.refused is None or not alone.refused[0]:
            found = replace(found, branches=alone.branches, without_area_deg=alone.without_area_deg)
        return take_estimate(found, 0)

    def predict_signals(self, sessions: SessionSet) -> dict[str, NDArray[Any]] | None:
        """Return what the ONNX file says of the signals; None: a model of positions alone."""
        from heimdall_assets.learning.export.onnx_file import predict_onnx_signals

        return predict_onnx_signals(self.fitted, self.onnx, sessions)


def read_released(stores: Stores, model: str) -> Released:
    """Return a released model by version, latest or alias.

    Raises:
        NotFound: there is no such model.
    """
    version = stores.releases.resolve(model)
    manifest = Manifest.decode(stores.objects.read_bytes(stores.releases.find_record(version)["manifest"]))
    checkpoint = read_parent(stores.objects, manifest, TRAINED_CHECKPOINT)
    return Released(
        version=version,
        onnx=stores.releases.read_file(version, "model.onnx"),
        manifest=manifest,
        fitted=load_checkpoint(stores.objects, checkpoint),
    )
