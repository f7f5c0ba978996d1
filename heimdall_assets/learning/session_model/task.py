"""The task of the session model: what is learned from data, batches, losses, calibration, prediction, the graph.

Belongs here: what ``task.Task`` promises, for ``NetworkLocalizationNet``. Does not belong here: the network
(``session_model.model``), tables (``session_model.table``), fitting (``fitting.training``). Examples are sessions.
"""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heimdall_assets.errors import InvalidInput
from heimdall_assets.evaluation.calibration import fit_conformal_scale
from heimdall_assets.evaluation.residuals import compute_residuals
from heimdall_assets.learning.receiver_model.frame import compute_channel_statistics
from heimdall_assets.learning.session_model.feed import (
    collect_positions,
    collect_signals,
    feed_sessions,
    name_outputs,
)
from heimdall_assets.learning.session_model.graph import GROUP_EDGES, NetworkGraph
from heimdall_assets.learning.session_model.loss import (
    compute_divergence,
    compute_gaussian_loss,
    compute_heavy_loss,
    compute_squared_z,
)
from heimdall_assets.learning.session_model.model import Located, NetworkLocalizationNet
from heimdall_assets.learning.session_model.network_run import make_inputs, run_network
from heimdall_assets.learning.session_model.pair_columns import NUM_PAIR_NUMBERS
from heimdall_assets.learning.session_model.pair_tokens import PairEncoder, measure_pairs
from heimdall_assets.learning.session_model.physics import LevelLaw, compute_covariance
from heimdall_assets.learning.session_model.signal_fit import fit_signal_heads
from heimdall_assets.learning.session_model.signal_heads import SignalHeads
from heimdall_assets.learning.session_model.signal_watch import SignalWatch
from heimdall_assets.learning.session_model.statistics import (
    MIN_TIMED,
    choose_trust,
    count_observed,
    count_rows,
    count_usable,
    find_bearings,
    list_signal_tasks,
    measure_level_law,
)
from heimdall_assets.learning.session_model.table import (
    BEARING_COLUMNS,
    RECEIVER_COLUMNS,
    assemble_table,
    disturb_table,
    join_sessions,
)
from heimdall_assets.learning.session_model.tracks import OUTPUTS
from heimdall_assets.learning.task import ExportGraph, PretrainedWeights
from heimdall_assets.learning.teaching import TEACHER_LOSS
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.signals.signal_track import NUM_ROWS, NUM_STEPS
from heimdall_assets.simulation.bearings import add_bearings
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.specs import AugmentationSpec, ModelSpec, SimulationSpec, TrainingSpec
from heimdall_assets.training_tables import Record

MIN_GROUP = 100
"""Validation sessions that a calibration group needs; smaller ones take the factor of all sessions."""

MIN_CALIBRATED = 20
"""Validation sessions without which a 90 % ellipse cannot be promised at all."""

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the learned corrections that validation chooses from; 0 is the classical solution with learned ellipses."""

MARGIN_FLOOR_KM = 1e-3
"""Labels are never better than a metre: keeps the loss finite where a source stands on its estimate."""


class NetworkTask:
    """Fits and applies ``NetworkLocalizationNet``; see ``task.Task`` for what each method promises."""

    kind = "network"
    input_statistics = ("feature_shape", "feature_mean_db", "feature_std_db", "pairs", "bearings", "level_prior")

    def __init__(self) -> None:
        self._level_prior: Any = (
            None  # between fit_statistics and start_network of one fit, as its shape is needed before
        )
        self._record: Record | None = None

    def extend_training(self, train: SessionSet, training: TrainingSpec) -> SessionSet:
        """Return ``train`` and, where asked for, simulated sessions of networks that stand nowhere else."""
        if not training.num_simulated_sessions:
            return train
        simulated = simulate_training_sessions(training.num_simulated_sessions, training.seed)
        return join_sessions([train, *_add_bearings(simulated, train, training.seed)])

    def fit_statistics(self, model: ModelSpec, train: SessionSet) -> dict[str, Any]:
        """Return the spectrograms' scale, the shape of a fitted level prior, and which classical solution to start at.

        A level prior is fitted where most sessions have levels but too few delays; it does not know delays.
        """
        examples = self.list_examples(train)
        if not len(examples):
            raise InvalidInput(
                f"training split: 0 of {len(train)} sessions have a receiver with a delay, a level or a spectrogram "
                "and a known source: expected at least 1 for a network model"
            )
        chosen = train.take(examples)
        statistics: dict[str, Any] = {"feature_shape": None, "feature_mean_db": None, "feature_std_db": None}
        rows = chosen.feature_row[chosen.feature_row >= 0]
        if model.use_spectrograms and train.features is not None and len(rows):
            mean, std, shape = compute_channel_statistics(train, rows)
            statistics = {"feature_shape": list(shape), "feature_mean_db": mean, "feature_std_db": std}
        statistics["level_prior"], self._level_prior = None, None
        if find_bearings(chosen).any():
            statistics["bearings"] = True
        if np.mean(count_rows(chosen) < MIN_TIMED - 1) > 0.5 and np.isfinite(chosen.level_db).any():
            from heimdall_assets.learning.level_prior.fit import fit_level_prior

            self._level_prior = fit_level_prior(chosen)
            statistics["level_prior"] = self._level_prior.settings
        statistics["pairs"] = measure_pairs(chosen) if model.use_correlations else None
        if model.multi_target:
            statistics["signal_tasks"] = list_signal_tasks(chosen)
        statistics["level_law"] = measure_level_law(chosen)._asdict()
        statistics["trust"] = choose_trust(chosen)
        return statistics

    def build_network(
        self, model: ModelSpec, statistics: dict[str, Any], weights: PretrainedWeights | None = None
    ) -> NetworkLocalizationNet:
        backbone, level_prior = None, None
        if statistics["feature_shape"] is not None:
            from heimdall_assets.learning.backbone import build_backbone

            backbone = build_backbone(model.backbone_size, model.pretrained, weights)
            backbone.requires_grad_(not model.freeze_backbone)
        if statistics["level_prior"] is not None:
            from heimdall_assets.learning.level_prior.prior import LevelPrior

            level_prior = LevelPrior.create(statistics["level_prior"])
            level_prior.requires_grad_(False)
        network = NetworkLocalizationNet(
            width=model.width,
            num_layers=model.num_layers,
            num_heads=model.num_heads,
            dropout=model.dropout,
            backbone=backbone,
            level_prior=level_prior,
            trust=statistics["trust"],
            level_law=LevelLaw(**{name: float(value) for name, value in statistics["level_law"].items()}),
            pair_encoder=None if statistics["pairs"] is None else PairEncoder(statistics["pairs"], model.width),
            bearings=bool(statistics.get("bearings")),
        )
        if model.multi_target:  # after all else is drawn: positions start at the same weights with and without heads
            network.signals = SignalHeads().requires_grad_(False)  # fitted apart, by ``finish_network``
        return network

    def start_network(
        self, network: nn.Module, model: ModelSpec, train: SessionSet, statistics: dict[str, Any]
    ) -> None:
        """Set the level prior that ``fit_statistics`` fitted on the same split.

        Where no session has a delay, nothing is left to learn on top of a level prior: every weight is frozen, so that
        no epoch is spent on gradients that are zero.
        """
        own = _narrow(network)
        if self._level_prior is not None:
            assert own.level_prior is not None
            own.level_prior.load_state_dict(self._level_prior.state_dict())
            if not count_observed(train, own.bearing_head is not None).any():
                own.requires_grad_(False)

    def list_examples(self, sessions: SessionSet) -> NDArray[np.int64]:
        known = np.isfinite(sessions.source_latitude) & np.isfinite(sessions.source_longitude)
        return np.flatnonzero(known & (count_usable(sessions) > 0))

    def name_examples(self, sessions: SessionSet, examples: NDArray[np.int64]) -> list[str]:
        return [f"session {name}" for name in sessions.session_id[examples]]

    def make_batch(
        self,
        sessions: SessionSet,
        examples: NDArray[np.int64],
        statistics: dict[str, Any],
        augmentation: AugmentationSpec | None = None,
        rng: np.random.Generator | None = None,
    ) -> dict[str, Tensor]:
        chosen = sessions.take(examples)
        table = assemble_table(chosen)
        if augmentation is not None:
            if rng is None:
                raise InvalidInput("augmentation without a random generator: expected both")
            # A level prior holds a map: turned, its sites would stand elsewhere.
            table = disturb_table(table, augmentation, rng, turn=statistics["level_prior"] is None)
        return {
            **make_inputs(chosen, table, statistics),
            "truth": torch.from_numpy(table.truth_km),
            "margin": torch.from_numpy(table.margin_km).clamp_min(MARGIN_FLOOR_KM),
        }

    def compute_loss(self, network: nn.Module, batch: dict[str, Tensor], epoch: int) -> dict[str, Tensor]:
        """Return the heavy-tailed likelihood to minimise, the Gaussian one and the squared error to watch."""
        located = _locate(network, batch)
        position, factor = located.position, located.factor
        known = (batch["truth"], batch["margin"])
        squared, log_determinant = compute_squared_z(position.detach(), factor, *known)
        # One term for the ellipse, one for the position: together they would trade the median for a shorter tail.
        pull, _ = compute_squared_z(position, factor.detach(), *known)
        with torch.no_grad():
            gaussian = compute_gaussian_loss(squared, log_determinant).mean()
            error_km = (located.position - batch["truth"]).square().sum(-1).sqrt().median()
        loss = (compute_heavy_loss(squared, log_determinant) + compute_heavy_loss(pull, 0.0 * pull)).mean()
        losses = {"loss": loss, "gaussian_nll": gaussian, "median_error_km": error_km}
        if "teacher_position" in batch:
            apart = compute_divergence(position, factor, batch["teacher_position"], batch["teacher_factor"])
            losses[TEACHER_LOSS] = apart.mean()
        return losses

    def ask_teacher(self, teacher: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``teacher_position`` (B, 2) and ``teacher_factor`` (B, 3), km."""
        with torch.no_grad():
            located = _locate(teacher, batch)
        return {"teacher_position": located.position, "teacher_factor": located.factor}

    def list_channels(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return columns of the receivers' table and of bearings, channels of spectrograms; NaN for what is missing."""
        present = ~batch["receivers"][..., 0].isnan()
        found = dict(zip(RECEIVER_COLUMNS, batch["receivers"][present].unbind(-1), strict=True))
        if "bearings" in batch:
            names = (f"bearing_{name}" for name in BEARING_COLUMNS)
            found |= dict(zip(names, batch["bearings"][present].unbind(-1), strict=True))
        if "spectrograms" in batch:
            channels = batch["spectrograms"][batch["seen"]].unbind(1)
            found |= {f"spectrogram_{number}": values for number, values in enumerate(channels)}
        return found

    def measure_outputs(self, output: Located, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        position, factor = output.position.float(), output.factor.float()
        squared_z, _ = compute_squared_z(position, factor, batch["truth"], batch["margin"])
        return {
            "error_m": 1e3 * (position - batch["truth"]).square().sum(-1).sqrt(),
            "sigma_m": 1e3 * compute_covariance(factor)[:, :2].mean(-1).sqrt(),
            "squared_z": squared_z,
        }

    def report_to(self, record: Record) -> None:
        """Have the epochs of signal heads told."""
        self._record = record

    def list_blocks(self, network: nn.Module) -> list[nn.Module]:
        own = _narrow(network)
        blocks: list[nn.Module] = [own.first, *own.layers]
        if own.backbone is not None:
            from heimdall_assets.learning.backbone import list_backbone_layers

            layers = list_backbone_layers(own.backbone).values()
            blocks += [layer for layer in layers if len(list(layer.children()))]
        return blocks

    def finish_network(
        self, network: nn.Module, train: SessionSet, val: SessionSet, training: TrainingSpec
    ) -> dict[str, Any]:
        """Fit signal heads, where there are some; return how that went."""
        heads = _narrow(network).signals
        watch = None if self._record is None else SignalWatch(self._record)
        return {} if heads is None else fit_signal_heads(heads, train, val, training.seed, watch)

    def calibrate(self, network: nn.Module, val: SessionSet, statistics: dict[str, Any]) -> dict[str, Any]:
        """Return the variance factors of each group whose 90 % ellipses hold on ``val`` (split conformal).

        Before that, the network's own ``share`` is set: how much of what it learned about positions holds on ``val``.
        """
        usable = val.take(self.list_examples(val))
        if len(usable) < MIN_CALIBRATED:
            return {}
        _narrow(network).share.fill_(self._choose_share(network, usable, statistics))
        found = self.predict(network, usable, statistics, {})
        kept = np.flatnonzero(~found.refused) if found.refused is not None else np.arange(len(usable))
        observed = count_observed(usable, bool(statistics.get("bearings")))
        group = np.searchsorted(GROUP_EDGES, observed, side="right")
        everyone = fit_conformal_scale(take_predictions(found, kept), usable.take(kept))
        scales = []
        for number in range(len(GROUP_EDGES) + 1):
            mine = kept[group[kept] == number]
            enough = len(mine) >= MIN_GROUP
            scales.append(fit_conformal_scale(take_predictions(found, mine), usable.take(mine)) if enough else everyone)
        if statistics["level_prior"] is not None:
            # It made itself honest on ground held out in larger blocks than the split's: validation may only widen it.
            scales[0] = max(1.0, scales[0])
        return {"variance_scale": scales}

    def _choose_share(self, network: nn.Module, val: SessionSet, statistics: dict[str, Any]) -> float:
        """Return the share of least mean logarithmic error on ``val``: median and tail both count in it."""
        observed = count_observed(val, bool(statistics.get("bearings")))
        if statistics["level_prior"] is not None and not observed.any():
            return SHARES[0]  # nothing is learned on top of a level prior
        scores = {}
        for share in SHARES:
            _narrow(network).share.fill_(share)
            error_m = compute_residuals(val, self.predict(network, val, statistics, {})).error_m
            scores[share] = float(np.nanmean(np.log(np.maximum(error_m, 1.0))))
        return min(SHARES, key=scores.__getitem__)

    def predict(
        self, network: nn.Module, sessions: SessionSet, statistics: dict[str, Any], calibration: dict[str, Any]
    ) -> Predictions:
        """Return one prediction per session; those without any receiver at a known place are refused."""
        examples, outputs = run_network(network, sessions, statistics, calibration)
        return collect_positions(sessions, examples, outputs)

    def predict_signals(
        self, network: nn.Module, sessions: SessionSet, statistics: dict[str, Any], calibration: dict[str, Any]
    ) -> dict[str, NDArray[Any]] | None:
        """Return ``tracks.OUTPUTS``, one row a session, NaN where nothing was demodulated; None without heads."""
        if not statistics.get("signal_tasks"):
            return None
        examples, outputs = run_network(network, sessions, statistics, calibration, whole=True)
        return collect_signals(sessions, examples, outputs)

    def make_export_graph(
        self, network: nn.Module, model: ModelSpec, statistics: dict[str, Any], calibration: dict[str, Any]
    ) -> ExportGraph:
        batch, receivers = "batch", "receivers"
        example = torch.full((3, 5, len(RECEIVER_COLUMNS)), 1.0)
        example[..., :2] = 30.0 * torch.tensor([[0, 0], [1, 0], [0, 1], [-1, 0.3], [0.2, -1]])
        inputs = {"origin": torch.tensor([[45.0, 8.0]] * 3, dtype=torch.float64), "receivers": example}
        axes: dict[str, dict[int, str]] = {"origin": {0: batch}, "receivers": {0: batch, 1: receivers}}
        if statistics["feature_shape"] is not None:
            inputs["spectrograms"] = torch.full((3, 5, *statistics["feature_shape"]), -50.0)
            inputs["seen"] = torch.ones(3, 5, dtype=torch.bool)
            axes |= {"spectrograms": {0: batch, 1: receivers}, "seen": {0: batch, 1: receivers}}
        if statistics["pairs"] is not None:
            num_columns = NUM_PAIR_NUMBERS + 2 * statistics["pairs"]["num_lags"]
            inputs["pairs"] = torch.full((3, 5, 5, num_columns), 0.5)
            inputs["paired"] = torch.ones(3, 5, 5, dtype=torch.bool)
            square = {0: batch, 1: receivers, 2: receivers}
            axes |= {"pairs": square, "paired": square}
        if statistics.get("bearings"):
            inputs["bearings"] = torch.full((3, 5, len(BEARING_COLUMNS)), 0.5)
            axes["bearings"] = {0: batch, 1: receivers}
        if statistics.get("signal_tasks"):
            inputs["tracks"] = torch.full((3, 5, NUM_ROWS, NUM_STEPS), 0.5)
            inputs["tracked"] = torch.ones(3, 5, dtype=torch.bool)
            axes |= {"tracks": {0: batch, 1: receivers}, "tracked": {0: batch, 1: receivers}}
        for weight in network.parameters():
            weight.requires_grad_(False)

        def feed(sessions: SessionSet, size: int) -> Iterator[tuple[NDArray[np.int64], dict[str, NDArray[Any]]]]:
            return feed_sessions(sessions, size, statistics, whole=True)

        return ExportGraph(
            module=NetworkGraph(network, statistics, calibration).eval(),
            inputs=inputs,
            dynamic_axes=axes,
            outputs=name_outputs(statistics),
            feed=feed,
            collect=collect_positions,
            collect_signals=collect_signals if statistics.get("signal_tasks") else None,
            kept_whole=("level_prior", "signals", "pair_encoder"),
            facts={
                "input.origin": "(batch, 2) float64, latitude and longitude of the tangent plane, degrees of WGS-84",
                "input.receivers": f"(batch, receivers, {len(RECEIVER_COLUMNS)}) float32, NaN for what is missing: "
                + ", ".join(RECEIVER_COLUMNS),
                **(
                    {}
                    if statistics["pairs"] is None
                    else {
                        "input.pairs": "(batch, receivers, receivers, columns) float32, 0 where unknown: coherence, "
                        "curvature 1/s^2, lag step s, real and imaginary parts of the correlation of row's receiver "
                        "with the conjugate of column's",
                        "input.paired": "(batch, receivers, receivers) bool, which pairs are known",
                    }
                ),
                **(
                    {
                        "input.bearings": "(batch, receivers, 2) float32, NaN for what is missing: angle in the "
                        "tangent plane at the receiver, from north over east, and its one-sigma error, both in radians"
                    }
                    if statistics.get("bearings")
                    else {}
                ),
                "output.positions": "(batch, 2) float64, latitude and longitude, degrees of WGS-84",
                "output.uncertainties": "(batch, 2) float32, one-sigma north and east, metres",
                "output.covariance": "(batch, 3) float32, variance east, variance north, covariance, square metres",
                **(_describe_signals() if statistics.get("signal_tasks") else {}),
                "normalisation": "inside the graph",
            },
        )


def _locate(network: nn.Module, batch: dict[str, Tensor]) -> Located:
    names = ("spectrograms", "seen", "pairs", "paired", "bearings")
    located: Located = network(
        batch["receivers"], batch["offset"], **{name: batch[name] for name in names if name in batch}
    )
    return located


def _describe_signals() -> dict[str, str]:
    """Return what inputs and outputs of signal heads are, for the exported file."""
    return {
        "input.tracks": f"(batch, receivers, {NUM_ROWS}, {NUM_STEPS}) float32, of signals.signal_track: rows over "
        "equal parts of the recording: channel power dBFS, discriminator noise and audio dB Hz^2, carrier share, "
        "length of a part s, "
        "DTMF pair and single tone share of the audio, lines of its spectrum dB Hz^2",
        "input.tracked": "(batch, receivers) bool, which receivers have a track",
        **{f"output.{name}": text for name, text in OUTPUTS.items()},
    }


def simulate_training_sessions(num_sessions: int, seed: int) -> list[SessionSet]:
    """Return simulated sessions, half clear and half with late arrivals, a tenth of them with uncalibrated clocks.

    Seeds start far above those that a user would choose, so no session comes back in a test.
    """
    common: dict[str, Any] = {"min_receivers": 3, "max_receivers": 8, "snr_min_db": 0.0, "snr_max_db": 30.0}
    kinds: tuple[tuple[float, dict[str, Any]], ...] = (
        (0.45, {}),
        (0.45, {"blocked_fraction": 0.3, "blocked_excess_s": 2e-6}),
        (0.10, {"clock_class": "gnss"}),
    )
    return [
        simulate_observations(
            SimulationSpec(seed=(seed + 2**31 + number) % 2**32, **common, **changes),
            np.arange(round(share * num_sessions)),
            "random",
        )
        for number, (share, changes) in enumerate(kinds)
    ]


def _add_bearings(simulated: list[SessionSet], train: SessionSet, seed: int) -> list[SessionSet]:
    """Return simulated sessions with bearings as sharp and as often as those of ``train``; with none if it has none."""
    known = find_bearings(train)
    if not known.any() or train.bearing_sigma_deg is None:
        return simulated
    low, high = np.quantile(train.bearing_sigma_deg[known], [0.05, 0.95])
    share = float(known.mean())
    return [
        add_bearings(part, seed, sigma_min_deg=float(low), sigma_max_deg=float(high), heard_fraction=share)
        for part in simulated
    ]


def take_predictions(predictions: Predictions, rows: NDArray[np.int64]) -> Predictions:
    """Return the given rows of ``predictions``."""
    return Predictions(
        latitude=predictions.latitude[rows],
        longitude=predictions.longitude[rows],
        covariance_m2=predictions.covariance_m2[rows],
        method=predictions.method,
        refused=None if predictions.refused is None else predictions.refused[rows],
    )


def _narrow(network: nn.Module) -> NetworkLocalizationNet:
    """Return ``network`` itself; a task is given no network but those that its ``build_network`` made."""
    return cast(NetworkLocalizationNet, network)
