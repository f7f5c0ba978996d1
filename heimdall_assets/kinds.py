"""Kinds of results, the names of the graph's assets, and kinds of bytes, media types: each said once.

Belongs here: names. Does not belong here: what a result is made from (``pipeline.recipe``), what is read or written
(``formats``, ``stores.objects``).
"""

MEASUREMENT_DATABASE = "measurement_database"
"""Outside: its version is a fingerprint of the approved set, not the digest of a manifest."""

APPROVED_MEASUREMENTS = "approved_measurements"
IQ_FILES = "iq_files"
SPECTROGRAM_FEATURES = "spectrogram_features"
TRAIN_SPLIT = "train_split"
VAL_SPLIT = "val_split"
TEST_SPLIT = "test_split"
HYPERPARAMETER_SEARCH = "hyperparameter_search"
TRAINED_CHECKPOINT = "trained_checkpoint"
EVALUATION_METRICS = "evaluation_metrics"
ONNX_MODEL = "onnx_model"
MODEL_RELEASE = "model_release"
CHAMPION_MODEL = "champion_model"
CHAMPION_ON_NEW_DATA = "champion_on_new_data"
PRODUCTION_MONITORING = "production_monitoring"

SPLIT_KINDS = {"train": TRAIN_SPLIT, "val": VAL_SPLIT, "test": TEST_SPLIT}
"""What a session serves -> the kind of result that lists it."""

JSON_MEDIA_TYPE = "application/json"
JSON_LINES_MEDIA_TYPE = "application/jsonl"
PARQUET_MEDIA_TYPE = "application/vnd.apache.parquet"
NPY_MEDIA_TYPE = "application/x-npy"
SAFETENSORS_MEDIA_TYPE = "application/x-safetensors"
ONNX_MEDIA_TYPE = "application/onnx"
SVG_MEDIA_TYPE = "image/svg+xml"
BINARY_MEDIA_TYPE = "application/octet-stream"
