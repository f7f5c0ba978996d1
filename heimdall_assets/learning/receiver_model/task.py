"""The task of the specified one-receiver model: what its numbers mean on the globe, and how receivers are joined.

Belongs here: statistics, batches, prediction and fusion of ``LocalizationNet``. Does not belong here: the network
(``receiver_model.model``), fitting (``fitting.training``), ONNX (``export``, but for the graph it traces).
Axes are north, east (latitude before longitude) throughout; examples are rows of the receiver columns.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heimdall_assets.counts import say_count
from heimdall_assets.errors import InvalidInput
from heimdall_assets.evaluation.calibration import fit_conformal_scale
from heimdall_assets.evaluation.calibration import fit_variance_scale as fit_likeliest_scale
from heimdall_assets.learning.backbone import list_backbone_layers
from heimdall_assets.learning.receiver_model.degrees import compute_metres_per_degree, wrap_longitude
from heimdall_assets.learning.receiver_model.feed import (
    FRAME_FACT,
    collect_sessions,
    describe_frame,
    feed_receivers,
)
from heimdall_assets.learning.receiver_model.frame import (
    Fused,
    compute_channel_statistics,
    compute_scale_deg,
    compute_source_frame,
    find_sessions,
    fit_variance_scale,
    join_receivers,
    list_receivers,
    list_truth,
    read_features,
    standardise,
    to_normalised,
    to_predictions,
)
from heimdall_assets.learning.receiver_model.loss import compute_gaussian_nll
from heimdall_assets.learning.receiver_model.model import LocalizationNet
from heimdall_assets.learning.task import ExportGraph, PretrainedWeights
from heimdall_assets.learning.teaching import TEACHER_LOSS, compute_axis_divergence
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.signals.augment import augment_spectrograms
from heimdall_assets.specs import AugmentationSpec, ModelSpec, TrainingSpec
from heimdall_assets.training_tables import Record

PREDICT_BATCH = 256

MIN_CALIBRATED = 20
"""Validation sessions from which on a calibration may also narrow."""


class SingleReceiverTask:
    """Fits and applies ``LocalizationNet``; see ``task.Task`` for what each method promises."""

    kind = "single_receiver"
    input_statistics = ("feature_shape", "feature_mean_db", "feature_std_db", "centre_deg", "scale_m")

    def __init__(self) -> None:
        self._scale_m: list[float] | None = None  # of the statistics of one fit, to tell its errors in metres

    def extend_training(self, train: SessionSet, training: TrainingSpec) -> SessionSet:
        """Return ``train``.

        Raises:
            InvalidInput: simulated sessions without IQ were asked for, which this model cannot see.
        """
        if training.num_simulated_sessions:
            raise InvalidInput(
                f"num_simulated_sessions {training.num_simulated_sessions}: expected 0 for a single_receiver model: "
                "sessions simulated without IQ have no spectrogram"
            )
        return train

    def fit_statistics(self, model: ModelSpec, train: SessionSet) -> dict[str, Any]:
        """Return mean and std of each channel in dB, centre in degrees and scale in metres of the training sources."""
        examples = self.list_examples(train)
        if not len(examples):
            raise InvalidInput(
                f"training split: 0 of {len(train.feature_row)} receivers in "
                f"{say_count(len(train), 'session')} have a spectrogram "
                "and a known source: expected at least 1 for a single_receiver model"
            )
        mean, std, shape = compute_channel_statistics(train, train.feature_row[examples])
        sessions = find_sessions(train, examples)
        frame = compute_source_frame(train.source_latitude[sessions], train.source_longitude[sessions])
        self._scale_m = frame["scale_m"]
        return {
            "feature_shape": list(shape),
            "feature_mean_db": mean,
            "feature_std_db": std,
            **frame,
        }

    def build_network(
        self, model: ModelSpec, statistics: dict[str, Any], weights: PretrainedWeights | None = None
    ) -> LocalizationNet:
        return LocalizationNet(
            backbone_size=model.backbone_size,
            pretrained=model.pretrained,
            freeze_backbone=model.freeze_backbone,
            uncertainty_min=model.uncertainty_min,
            uncertainty_max=model.uncertainty_max,
            dropout=model.dropout,
            weights=weights,
        )

    def start_network(
        self, network: nn.Module, model: ModelSpec, train: SessionSet, statistics: dict[str, Any]
    ) -> None:
        """Leave the network as it was built: all of it is trained."""

    def list_examples(self, sessions: SessionSet) -> NDArray[np.int64]:
        rows = list_receivers(sessions)
        known = np.isfinite(sessions.source_latitude) & np.isfinite(sessions.source_longitude)
        return rows[known[find_sessions(sessions, rows)]]

    def name_examples(self, sessions: SessionSet, examples: NDArray[np.int64]) -> list[str]:
        owners = find_sessions(sessions, examples)
        return [
            f"session {sessions.session_id[owner]} at {sessions.station_id[row]}"
            for owner, row in zip(owners, examples, strict=True)
        ]

    def make_batch(
        self,
        sessions: SessionSet,
        examples: NDArray[np.int64],
        statistics: dict[str, Any],
        augmentation: AugmentationSpec | None = None,
        rng: np.random.Generator | None = None,
    ) -> dict[str, Tensor]:
        features = read_features(sessions, sessions.feature_row[examples], statistics)
        if augmentation is not None:
            if rng is None:
                raise InvalidInput("augmentation without a random generator: expected both")
            features = augment_spectrograms(features, augmentation, rng)
        owners = find_sessions(sessions, examples)
        target = to_normalised(sessions.source_latitude[owners], sessions.source_longitude[owners], statistics)
        label_sigma = sessions.error_margin_m[owners, None] / np.array(statistics["scale_m"])
        return {
            "features": torch.from_numpy(standardise(features, statistics)),
            "target": torch.from_numpy(target.astype(np.float32)),
            "label_sigma": torch.from_numpy(label_sigma.astype(np.float32)),
        }

    def compute_loss(self, network: nn.Module, batch: dict[str, Tensor], epoch: int) -> dict[str, Tensor]:
        output = network(batch["features"])
        loss = compute_gaussian_nll(output[:, :2], output[:, 2:], batch["target"], batch["label_sigma"]).mean()
        with torch.no_grad():
            squared_error = (output[:, :2] - batch["target"]).square().sum(dim=1).mean()
        losses = {"loss": loss, "squared_error": squared_error}
        if (taught := batch.get("teacher")) is not None:
            apart = compute_axis_divergence(output[:, :2], output[:, 2:], taught[:, :2], taught[:, 2:])
            losses[TEACHER_LOSS] = apart.mean()
        return losses

    def ask_teacher(self, teacher: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``teacher`` (B, 4), normalised as the student's own outputs."""
        with torch.no_grad():
            return {"teacher": teacher(batch["features"])}

    def list_channels(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {f"spectrogram_{number}": values for number, values in enumerate(batch["features"].unbind(1))}

    def measure_outputs(self, output: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return errors in metres; empty where ``fit_statistics`` was not asked of this task."""
        if self._scale_m is None:
            return {}
        scale_m = output.new_tensor(self._scale_m)
        error, sigma = output[:, :2].float() - batch["target"], output[:, 2:].float()
        return {
            "error_m": (error * scale_m).square().sum(1).sqrt(),
            "sigma_m": (sigma * scale_m).square().mean(1).sqrt(),
            "squared_z": (error.square() / (sigma.square() + batch["label_sigma"].square())).sum(1),
        }

    def report_to(self, record: Record) -> None:
        """Do nothing: all of it is fitted by gradient descent."""

    def list_blocks(self, network: nn.Module) -> list[nn.Module]:
        return [layer for layer in list_backbone_layers(network.backbone).values() if len(list(layer.children()))]

    def finish_network(
        self, network: nn.Module, train: SessionSet, val: SessionSet, training: TrainingSpec
    ) -> dict[str, Any]:
        return {}

    def calibrate(self, network: nn.Module, val: SessionSet, statistics: dict[str, Any]) -> dict[str, Any]:
        """Return the variance scale of receivers (mean squared z of one) and of fused sessions (90 % ellipses hold).

        A validation split of fewer than ``MIN_CALIBRATED`` sessions may widen but not narrow: luck is no precision.
        """
        rows = self.list_examples(val)
        owners = find_sessions(val, rows)
        position, variance = self._predict_normalised(network, val, rows, statistics)
        target, margin = list_truth(val, owners, statistics)
        receiver_scale = fit_variance_scale((position - target) ** 2, variance, margin)
        is_few = len(np.unique(owners)) < MIN_CALIBRATED
        receiver_scale = max(receiver_scale, 1.0) if is_few else receiver_scale
        fused = join_receivers(val, rows, position, variance * receiver_scale, statistics, {})
        session_scale = max(fit_likeliest_scale(fused, val), 1.0) if is_few else fit_conformal_scale(fused, val)
        return {"receiver_variance_scale": receiver_scale, "session_variance_scale": session_scale}

    def predict(
        self, network: nn.Module, sessions: SessionSet, statistics: dict[str, Any], calibration: dict[str, Any]
    ) -> Predictions:
        """Return the fusion of each session's receivers; sessions without a spectrogram are refused."""
        rows = list_receivers(sessions)
        position, variance = self._predict_normalised(network, sessions, rows, statistics)
        variance = variance * calibration.get("receiver_variance_scale", 1.0)
        return join_receivers(sessions, rows, position, variance, statistics, calibration)

    def predict_receivers(
        self, network: nn.Module, sessions: SessionSet, statistics: dict[str, Any], calibration: dict[str, Any]
    ) -> Predictions:
        """Return one prediction per receiver (M,), each from its own spectrogram alone; those without are refused."""
        rows = list_receivers(sessions)
        position, variance = self._predict_normalised(network, sessions, rows, statistics)
        count = len(sessions.feature_row)
        spread = Fused(np.full((count, 2), np.nan), np.full((count, 2), np.nan), np.full(count, np.nan))
        spread.position[rows] = position
        spread.variance[rows] = variance * calibration.get("receiver_variance_scale", 1.0)
        spread.covariance[rows] = 0.0
        return to_predictions(spread, statistics, self.kind + " receivers")

    def make_export_graph(
        self, network: nn.Module, model: ModelSpec, statistics: dict[str, Any], calibration: dict[str, Any]
    ) -> ExportGraph:
        def feed(sessions: SessionSet, size: int) -> Iterator[tuple[NDArray[np.int64], dict[str, NDArray[Any]]]]:
            return feed_receivers(sessions, size, statistics)

        def collect(sessions: SessionSet, rows: NDArray[np.int64], outputs: dict[str, NDArray[Any]]) -> Predictions:
            return collect_sessions(sessions, rows, outputs, statistics, calibration)

        return ExportGraph(
            module=SingleReceiverGraph(network, statistics, calibration).eval(),
            inputs={"features": torch.linspace(-100, 0, 2).reshape(2, 1, 1, 1).repeat(1, *statistics["feature_shape"])},
            dynamic_axes={"features": {0: "batch"}},
            outputs=["positions", "uncertainties"],
            feed=feed,
            collect=collect,
            facts={
                "input.features": "(batch, 3, mels, frames) float32, dB of full scale, not standardised",
                "output.positions": "(batch, 2) float64, latitude and longitude, degrees of WGS-84",
                "output.uncertainties": "(batch, 2) float32, one-sigma north and east, metres",
                "normalisation": f"inside the graph: mean dB {statistics['feature_mean_db']}, "
                f"std dB {statistics['feature_std_db']}",
                FRAME_FACT: describe_frame(statistics, calibration),
            },
        )

    def _predict_normalised(
        self, network: nn.Module, sessions: SessionSet, rows: NDArray[np.int64], statistics: dict[str, Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return position and variance (E, 2) each, normalised, uncalibrated."""
        outputs = [np.empty((0, 4))]
        was_training = network.training
        network.eval()
        device = next(network.parameters()).device
        with torch.no_grad():
            for start in range(0, len(rows), PREDICT_BATCH):
                part = sessions.feature_row[rows[start : start + PREDICT_BATCH]]
                features = standardise(read_features(sessions, part, statistics), statistics)
                outputs.append(network(torch.from_numpy(features).to(device)).cpu().numpy().astype(np.float64))
        network.train(was_training)
        joined = np.concatenate(outputs)
        return joined[:, :2], joined[:, 2:] ** 2


class SingleReceiverGraph(nn.Module):
    """What is exported: dB in, degrees and metres out, with statistics and calibration as constants."""

    mean_db: Tensor
    std_db: Tensor
    centre_deg: Tensor
    scale_deg: Tensor

    def __init__(self, network: nn.Module, statistics: dict[str, Any], calibration: dict[str, Any]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean_db", torch.tensor(statistics["feature_mean_db"], dtype=torch.float32).view(3, 1, 1))
        self.register_buffer("std_db", torch.tensor(statistics["feature_std_db"], dtype=torch.float32).view(3, 1, 1))
        self.register_buffer("centre_deg", torch.tensor(statistics["centre_deg"], dtype=torch.float64))
        self.register_buffer("scale_deg", torch.from_numpy(compute_scale_deg(statistics)))
        self.sigma_factor = float(np.sqrt(calibration.get("receiver_variance_scale", 1.0)))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return positions (B, 2) float64 degrees and uncertainties (B, 2) float32 metres."""
        output = self.network((features - self.mean_db) / self.std_db)
        degrees = self.centre_deg + output[:, :2].double() * self.scale_deg
        latitude, longitude = degrees[:, 0], wrap_longitude(degrees[:, 1])
        metres = torch.stack(compute_metres_per_degree(latitude, torch), dim=1)
        uncertainties = output[:, 2:].double() * self.sigma_factor * self.scale_deg * metres
        return torch.stack([latitude, longitude], dim=1), uncertainties.float()
