"""A weight without axes keeps its shape at rest."""

import numpy as np

from heimdall_assets.learning.fitting.fitted import FittedModel, decode_model
from heimdall_assets.specs import ModelSpec


def test_a_scalar_weight_comes_back_as_a_scalar():
    settings = {"model": ModelSpec().dump(), "statistics": {}, "calibration": {}}
    weights = {"share": np.array(0.5, np.float32), "table": np.ones((2, 3), np.float32, order="F")}
    back = decode_model(FittedModel(weights, settings).encode()).weights
    assert {name: values.shape for name, values in back.items()} == {"share": (), "table": (2, 3)}
