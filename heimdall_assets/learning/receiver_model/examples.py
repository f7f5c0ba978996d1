"""The examples of the one-receiver model as a torch ``Dataset``: a spectrogram and where its source stood.

Belongs here: what an item is, read one by one or many at once. Does not belong here: which sessions they are and where
their spectrograms rest (whoever makes one hands both in).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from heimdall_assets.errors import InvalidInput
from heimdall_assets.learning.receiver_model.frame import to_normalised

Item = tuple[Tensor, dict[str, Any]]
"""Features and label of one example."""


@dataclass(frozen=True)
class Examples:
    """E examples as columns.

    Attributes:
        measurement_id, session_id, station_id: str (E,).
        latitude, longitude: float64 (E,), of the source, degrees.
        error_margin_m: float64 (E,), one-sigma error of that truth.
        frame: ``frame.compute_source_frame`` of the training split.
    """

    measurement_id: NDArray[np.str_]
    session_id: NDArray[np.str_]
    station_id: NDArray[np.str_]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    error_margin_m: NDArray[np.float64]
    frame: dict[str, Any]


class ExampleDataset(Dataset[Item]):
    """Examples, their spectrograms read when they are asked for.

    Args:
        examples: all but the spectrograms.
        read: the spectrograms (N, 3, mels, frames) of the examples at the given places; goes to workers with this.
        transform: is given the features of an item, and returns what stands in their place.
    """

    def __init__(
        self,
        examples: Examples,
        read: Callable[[NDArray[np.int64]], NDArray[Any]],
        transform: Callable[[Tensor], Any] | None = None,
    ) -> None:
        self.examples, self.transform = examples, transform
        self._read = read
        self._target = to_normalised(examples.latitude, examples.longitude, examples.frame).astype(np.float32)
        sigma = examples.error_margin_m[:, None] / np.array(examples.frame["scale_m"])
        self._target_sigma = sigma.astype(np.float32)

    def __len__(self) -> int:
        return len(self.examples.measurement_id)

    def __getitem__(self, place: int) -> Item:
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[int]) -> list[Item]:
        """Return the items at ``places``, in that order: what a ``DataLoader`` asks for a batch."""
        asked = np.array([self._check(place) for place in places], dtype=np.int64)
        if not len(asked):
            return []
        features = torch.from_numpy(np.asarray(self._read(asked), dtype=np.float32))
        return [
            (one if self.transform is None else self.transform(one), self._label(place))
            for one, place in zip(features, asked.tolist(), strict=True)
        ]

    def _label(self, place: int) -> dict[str, Any]:
        own = self.examples
        return {
            "position": torch.tensor([own.latitude[place], own.longitude[place]], dtype=torch.float64),
            "target": torch.from_numpy(self._target[place].copy()),
            "target_sigma": torch.from_numpy(self._target_sigma[place].copy()),
            "session_id": str(own.session_id[place]),
            "station_id": str(own.station_id[place]),
            "measurement_id": str(own.measurement_id[place]),
        }

    def _check(self, place: int) -> int:
        number = int(place)
        if not -len(self) <= number < len(self):
            # IndexError ends a loop over the items; Python asks for that by this type
            raise IndexError(f"item {number}: expected at least {-len(self)} and less than {len(self)}")
        return number % len(self)

    def to_degrees(self, target: Tensor) -> Tensor:
        """Return latitude and longitude (..., 2) float64 of normalised targets (..., 2): the way back.

        Raises:
            InvalidInput: the last axis is not north and east.
        """
        from heimdall_assets.learning.receiver_model.frame import compute_scale_deg

        if target.shape[-1:] != (2,):
            raise InvalidInput(f"target: shape {tuple(target.shape)}, expected (..., 2): north, east")
        scale = torch.from_numpy(compute_scale_deg(self.examples.frame))
        degrees = torch.tensor(self.examples.frame["centre_deg"], dtype=torch.float64) + target.double().cpu() * scale
        return torch.stack([degrees[..., 0], (degrees[..., 1] + 180.0) % 360.0 - 180.0], dim=-1)
