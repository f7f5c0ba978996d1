"""A fitted model at rest and in use: weights, settings, history; bytes that are equal for equal models.

Belongs here: ``FittedModel``, encoding, decoding. Does not belong here: fitting (``fitting.training``), ONNX
(``export``).
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as decode_safetensors
from safetensors.numpy import save as encode_safetensors
from torch import nn

from heimdall_assets.errors import CorruptObject, InvalidInput
from heimdall_assets.learning.task import Task, find_task
from heimdall_assets.manifests import decode_canonical_json, encode_canonical_json
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.specs import ModelSpec

SETTINGS_FORMAT = 1
WEIGHTS_FILE = "weights.safetensors"
SETTINGS_FILE = "settings.json"


@dataclass(frozen=True)
class FittedModel:
    """A trained network with everything that prediction needs.

    Attributes:
        weights: the network's state by name.
        settings: JSON values: ``format``, ``model``, ``training``, ``augmentation`` (specs), ``statistics``,
            ``calibration``, ``environment`` (what the bits depend on), ``facts`` (counts, best epoch, mix).
        history: one dict per epoch: epoch, learning_rate, train_loss, val_loss, ...
    """

    weights: dict[str, NDArray[Any]]
    settings: dict[str, Any]
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def model(self) -> ModelSpec:
        return ModelSpec.model_validate(self.settings["model"])

    @property
    def statistics(self) -> dict[str, Any]:
        statistics: dict[str, Any] = self.settings["statistics"]
        return statistics

    @property
    def calibration(self) -> dict[str, Any]:
        calibration: dict[str, Any] = self.settings["calibration"]
        return calibration

    @cached_property
    def task(self) -> Task:
        return find_task(self.model.kind)

    @cached_property
    def network(self) -> nn.Module:
        """The network on the CPU, in evaluation mode, its weights loaded.

        Raises:
            InvalidInput: the weights do not fit the architecture of the settings.
        """
        # the stored weights hold the backbone's: what it once started from is not needed again
        spec = self.model.model_copy(update={"pretrained": False, "weights_file": None})
        with torch.random.fork_rng(devices=[]):
            network = self.task.build_network(spec, self.statistics)
        own = network.state_dict()
        if problems := _compare_weights(own, self.weights):
            raise InvalidInput(f"{WEIGHTS_FILE}: does not fit model {self.model.kind}: {problems}")
        network.load_state_dict({name: torch.from_numpy(self.weights[name].copy()) for name in own})
        return network.eval().requires_grad_(False)

    def predict(self, sessions: SessionSet) -> Predictions:
        """Return one calibrated prediction per session, computed on the CPU with the caller's thread count."""
        return self.task.predict(self.network, sessions, self.statistics, self.calibration)

    def predict_signals(self, sessions: SessionSet) -> dict[str, NDArray[Any]] | None:
        """Return ``tracks.OUTPUTS``, one row a session, NaN where unknown; None: a model of positions alone."""
        predict = getattr(self.task, "predict_signals", None)
        return None if predict is None else predict(self.network, sessions, self.statistics, self.calibration)

    def predict_receivers(self, sessions: SessionSet) -> Predictions:
        """Return one prediction per receiver, each from its own spectrogram.

        Raises:
            InvalidInput: this kind of model does not locate from one receiver's spectrogram.
        """
        predict = getattr(self.task, "predict_receivers", None)
        if predict is None:
            raise InvalidInput(f"model kind {self.model.kind}: has no answer per receiver: expected single_receiver")
        predictions: Predictions = predict(self.network, sessions, self.statistics, self.calibration)
        return predictions

    def encode(self) -> dict[str, bytes]:
        """Return the files of this model by name; equal models give equal bytes."""
        weights = {name: np.array(self.weights[name], order="C") for name in sorted(self.weights)}
        settings = {"format": SETTINGS_FORMAT, **self.settings, "history": self.history}
        return {WEIGHTS_FILE: encode_safetensors(weights), SETTINGS_FILE: encode_canonical_json(settings)}


def decode_model(files: dict[str, bytes]) -> FittedModel:
    """Return the model that ``FittedModel.encode`` gave ``files`` for.

    Raises:
        CorruptObject: a file is missing, damaged, of another format, or names a tensor or a key twice.
    """
    for name in (WEIGHTS_FILE, SETTINGS_FILE):
        if name not in files:
            raise CorruptObject(f"model: found {', '.join(sorted(files)) or 'no files'}: expected {name} among them")
    settings = _decode_settings(files[SETTINGS_FILE])
    weights = _decode_weights(files[WEIGHTS_FILE])
    history = settings.pop("history")
    settings.pop("format")
    return FittedModel(weights=weights, settings=settings, history=history)


def _decode_settings(data: bytes) -> dict[str, Any]:
    try:
        settings = decode_canonical_json(data.decode())
        if not isinstance(settings, dict) or settings.get("format") != SETTINGS_FORMAT:
            raise ValueError(f"expected an object with format {SETTINGS_FORMAT}")
        ModelSpec.model_validate(settings["model"])
        for key, kind in (("statistics", dict), ("calibration", dict), ("history", list)):
            if not isinstance(settings[key], kind):
                raise ValueError(f"{key}: expected a JSON {'object' if kind is dict else 'list'}")
    except (ValueError, KeyError, RecursionError, ValidationError) as error:
        line = " ".join(str(error).split())
        raise CorruptObject(f"{SETTINGS_FILE}: {type(error).__name__}: {line:.200}") from error
    return settings


def _decode_weights(data: bytes) -> dict[str, NDArray[Any]]:
    try:
        length = int.from_bytes(data[:8], "little")
        if len(data) < 8 or length > len(data) - 8:
            raise ValueError(f"{len(data)} bytes: expected a header of {length} bytes within them")
        decode_canonical_json(data[8 : 8 + length].decode())
        return decode_safetensors(data)
    except (ValueError, KeyError, RecursionError, SafetensorError) as error:
        line = " ".join(str(error).split())
        raise CorruptObject(f"{WEIGHTS_FILE}: not safetensors: {line:.200}") from error


def _compare_weights(own: dict[str, Any], given: dict[str, NDArray[Any]]) -> str:
    missing, extra = sorted(set(own) - set(given)), sorted(set(given) - set(own))
    if missing or extra:
        return f"{len(missing)} weights missing {missing[:2]}, {len(extra)} unknown {extra[:2]}"
    wrong = [name for name in own if tuple(own[name].shape) != given[name].shape]
    return f"{wrong[0]} is {given[wrong[0]].shape}: expected {tuple(own[wrong[0]].shape)}" if wrong else ""
