"""What the graph made last: the newest materialization of an asset in the home's history, as its manifest."""

from typing import TYPE_CHECKING

from heimdall_assets.errors import NotFound
from heimdall_assets.manifests import Manifest

if TYPE_CHECKING:
    from heimdall_assets.stores.home import Stores
    from heimdall_assets.variables import Places


_SEARCHED = 1000
"""So many results back one is looked for."""


def read_latest(places: "Places", stores: "Stores", kind: str) -> Manifest:
    """Return the manifest of the newest result of ``kind`` in the history of the graph; folds of a comparison are none.

    Raises:
        NotFound: the graph has made none, or it is gone.
        StorageError: the history could not be read.
    """
    import dagster as dg

    from heimdall_assets.dagster_home import prepare_dagster_home
    from heimdall_assets.defs.jobs import FIT_JOB
    from heimdall_assets.running.history import open_history

    with open_history(places, prepare_dagster_home(places)) as instance:
        records = instance.fetch_materializations(dg.AssetKey(kind), limit=_SEARCHED).records
        of_folds = {run.run_id for run in instance.get_runs(dg.RunsFilter(job_name=FIT_JOB))}
    made = next((record.asset_materialization for record in records if record.run_id not in of_folds), None)
    if made is None:
        raise NotFound(f"{kind}: found none in home {places.home}; a training (heimdall train) makes the first")
    return Manifest.decode(stores.objects.read_bytes((made.tags or {})["dagster/data_version"]))
