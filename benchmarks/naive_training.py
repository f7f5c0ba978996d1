"""Training as a newcomer writes it, to compare with: each picture computed from its recording when it is asked for.

The plain reading of the specification: SciPy's transforms in float64, a dense mel bank, PyTorch's own loader with its
own collation, float32 throughout, one step a batch, AdamW. It trains the very network of the platform on the very same
pictures (``check_pictures`` compares them), so that what differs is how, not what.
"""

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import signal
from torch.utils.data import DataLoader, Dataset

from heimdall_assets.learning.receiver_model.task import SingleReceiverTask
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.spectrogram import SMALLEST_SHARE, compute_mel_bank
from heimdall_assets.specs import FeatureSpec, ModelSpec, TrainingSpec


def compute_plain_picture(samples: NDArray[np.complexfloating], rate_hz: float, spec: FeatureSpec) -> NDArray[Any]:
    """Return the picture of ``spec`` (channels ``iq``, frames ``pooled``) by the shortest code, float32 (3, M, F)."""
    window = signal.get_window("hann", spec.n_fft)
    bank = compute_mel_bank(rate_hz, spec.n_fft, spec.num_mels, spec.f_min_hz, spec.f_max_hz)
    shortened = signal.ShortTimeFFT(window, spec.hop, rate_hz)
    full_scale = spec.n_fft * (window**2).sum()
    powers = []
    for part in (samples.real.astype(np.float64), samples.imag.astype(np.float64)):
        num = (len(part) - spec.n_fft) // spec.hop + 1
        first = shortened.m_num_mid  # transforms whose first sample is the recording's, no zeros before it
        frames = np.abs(shortened.stft(part, padding="zeros")) ** 2
        offset = -shortened.p_min
        begin = offset + -(-first // spec.hop)
        mel = 2.0 * bank @ frames[:, begin : begin + num] / full_scale  # both signs of a real signal
        edges = np.arange(spec.num_frames + 1) * num // spec.num_frames
        powers.append(np.stack([mel[:, a:b].mean(axis=1) for a, b in pairwise(edges)], axis=1))
    power = np.stack([*powers, powers[0] + powers[1]])
    return (10.0 * np.log10(power + SMALLEST_SHARE)).astype(np.float32)


class PlainDataset(Dataset[dict[str, torch.Tensor]]):
    """One receiver's picture an item, read and computed anew each time."""

    def __init__(
        self, files: list[Path], rate_hz: float, spec: FeatureSpec, batch: dict[str, torch.Tensor], stats: Any
    ):
        self.files, self.rate_hz, self.spec = files, rate_hz, spec
        self.target, self.label_sigma = batch["target"], batch["label_sigma"]
        self.mean = np.array(stats["feature_mean_db"], dtype=np.float32)[:, None, None]
        self.std = np.array(stats["feature_std_db"], dtype=np.float32)[:, None, None]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        samples = np.load(self.files[index], allow_pickle=False)
        picture = compute_plain_picture(samples, self.rate_hz, self.spec)
        return {
            "features": torch.from_numpy((picture - self.mean) / self.std),
            "target": self.target[index],
            "label_sigma": self.label_sigma[index],
        }


def train_naively(
    model: ModelSpec,
    training: TrainingSpec,
    parts: dict[str, SessionSet],
    files: dict[str, list[Path]],
    rate_hz: float,
    features: FeatureSpec,
) -> Iterator[dict[str, float]]:
    """Yield validation loss and seconds of processor and wall of each epoch."""
    task = SingleReceiverTask()
    stats = task.fit_statistics(model, parts["train"])
    loaders = {}
    for name, part in parts.items():
        batch = task.make_batch(part, task.list_examples(part), stats)
        dataset = PlainDataset(files[name], rate_hz, features, batch, stats)
        loaders[name] = DataLoader(dataset, batch_size=training.batch_size, shuffle=name == "train")
    torch.manual_seed(training.seed)
    torch.set_num_threads(training.num_threads)
    network = task.build_network(model, stats)
    optimizer = torch.optim.AdamW(network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    for epoch in range(training.max_epochs):
        began = time.process_time(), time.monotonic()
        network.train()
        for batch in loaders["train"]:
            optimizer.zero_grad()
            loss = task.compute_loss(network, batch, epoch)["loss"]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), training.gradient_clip)
            optimizer.step()
        network.eval()
        total, count = 0.0, 0
        with torch.no_grad():
            for batch in loaders["val"]:
                total += float(task.compute_loss(network, batch, epoch)["loss"]) * len(batch["target"])
                count += len(batch["target"])
        yield {
            "val_loss": total / count,
            "cpu_s": time.process_time() - began[0],
            "wall_s": time.monotonic() - began[1],
        }
