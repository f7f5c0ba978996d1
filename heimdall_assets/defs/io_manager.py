"""IO manager: manifests rest under their digest, and a step loads exactly the version that its run recorded.

Dagster's own file managers keep one path per asset and overwrite it; here nothing is ever overwritten, so the input of
every old materialization can still be loaded, and is checked against its digest each time.
"""

import dagster as dg

from heimdall_assets.errors import HeimdallError
from heimdall_assets.manifests import Manifest
from heimdall_assets.media_types import JSON_MEDIA_TYPE
from heimdall_assets.stores.objects.folder import ObjectStore


class ManifestIOManager(dg.IOManager):
    """Stores what an asset returns (a ``Manifest``) by content, and loads it by recorded data version."""

    def __init__(self, objects: ObjectStore):
        self._objects = objects

    def handle_output(self, context: dg.OutputContext, obj: Manifest) -> None:
        if not isinstance(obj, Manifest):
            raise dg.DagsterInvariantViolationError(
                f"asset {context.asset_key.to_user_string()}: found {type(obj).__name__}, expected a Manifest"
            )
        self._objects.put_bytes(obj.encode(), JSON_MEDIA_TYPE)

    def load_input(self, context: dg.InputContext) -> Manifest:
        key = context.asset_key.to_user_string()
        # The event that this very run recorded as its input, not whatever is the latest by now.
        recorded = context.step_context.maybe_fetch_and_get_input_asset_version_info(context.asset_key)
        if recorded is None or recorded.data_version is None:
            raise dg.Failure(
                f"{key}: found no materialization, expected one: materialize {key} first", allow_retries=False
            )
        digest = recorded.data_version.value
        try:
            return Manifest.decode(self._objects.read_bytes(digest))
        except (HeimdallError, ValueError) as error:
            raise dg.Failure(f"{key}: {error}", allow_retries=False) from error
