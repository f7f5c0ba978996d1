"""Kinds of results: the names of the graph's assets, each said once; kinds of what else lineage speaks about.

Belongs here: names. Does not belong here: what a result is made from (``pipeline.recipe``).
"""

MEASUREMENT_DATABASE = "measurement_database"
"""Outside: its version is a fingerprint of the approved set, not the digest of a manifest."""

APPROVED_MEASUREMENTS = "approved_measurements"
IQ_FILES = "iq_files"
SPECTROGRAM_FEATURES = "spectrogram_features"
TRAIN_SPLIT = "train_split"
VAL_SPLIT = "val_split"
TEST_SPLIT = "test_split"
TRAINED_CHECKPOINT = "trained_checkpoint"
EVALUATION_METRICS = "evaluation_metrics"
ONNX_MODEL = "onnx_model"
MODEL_RELEASE = "model_release"
CHAMPION_MODEL = "champion_model"

SPLIT_KINDS = {"train": TRAIN_SPLIT, "val": VAL_SPLIT, "test": TEST_SPLIT}
"""What a session serves -> the kind of result that lists it."""

Thing = tuple[str, str]
"""Kind and name of something that lineage speaks about: a result by its digest, or one of those below."""

Edge = tuple[Thing, Thing, Thing | None]
"""What was used, what it was used for, and, of a recording or a station, the measurement through which it was."""

SESSION, SESSION_NAME = "session", "session_name"
SOURCE, SOURCE_NAME = "source", "source_name"
STATION, STATION_NAME = "station", "station_name"
MEASUREMENT = "measurement"
DECISION = "decision"
"""By its number: what approved a session."""
OBJECT = "object"
"""Bytes at rest, by digest: a recording, a table, weights."""
RELEASE = "release"

SESSION_ROWS, SESSION_RECORDINGS = "session_rows", "session_recordings"
"""What of one session stands in a snapshot, and its recordings that were pinned: the same in every snapshot that did
not change it, and so told once."""
PART = "part"
"""Neighbours in a table, by digest of what they are: most of a table is the same from one result to the next."""
