"""Assets: one file per asset, named for it, in the order in which they read: measurements to release.

All are of one group: a graph of several groups opens in Dagster's page as closed boxes, which say nothing.
"""

import dagster as dg

from heimdall_assets.defs.assets.approved_measurements import approved_measurements, measurement_database
from heimdall_assets.defs.assets.champion_model import champion_model
from heimdall_assets.defs.assets.champion_on_new_data import champion_on_new_data
from heimdall_assets.defs.assets.evaluation_metrics import evaluation_metrics
from heimdall_assets.defs.assets.hyperparameter_search import hyperparameter_search
from heimdall_assets.defs.assets.iq_files import iq_files
from heimdall_assets.defs.assets.model_release import model_release
from heimdall_assets.defs.assets.onnx_model import onnx_model
from heimdall_assets.defs.assets.production_monitoring import production_monitoring
from heimdall_assets.defs.assets.spectrogram_features import spectrogram_features
from heimdall_assets.defs.assets.splits import splits
from heimdall_assets.defs.assets.trained_checkpoint import trained_checkpoint

ASSETS: list[dg.AssetsDefinition | dg.AssetSpec] = [
    measurement_database,
    approved_measurements,
    champion_on_new_data,
    production_monitoring,
    iq_files,
    spectrogram_features,
    splits,
    hyperparameter_search,
    trained_checkpoint,
    evaluation_metrics,
    onnx_model,
    model_release,
    champion_model,
]
