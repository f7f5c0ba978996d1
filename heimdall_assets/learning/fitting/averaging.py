"""A moving average of a network's weights (EMA): what is judged and kept where a fit asks for it.

Belongs here: the average, and changing places with the weights that are trained. Does not belong here: when.
"""

from typing import Any

import torch
from torch import Tensor, nn

from heimdall_assets.errors import CorruptObject


class MovingAverage:
    """average <- decay * average + (1 - decay) * weights after each step, from the first weights on.

    Whole numbers are no average of anything and are taken as they are.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = network
        self.decay = decay
        self.is_in_place = False
        self.values: dict[str, Tensor] = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        for name, value in self.network.state_dict().items():
            mean = self.values[name]
            if value.is_floating_point():
                mean.lerp_(value, 1.0 - self.decay)
            else:
                mean.copy_(value)

    @torch.no_grad()
    def put_in_place(self, wanted: bool) -> None:
        """Let the network hold the average, or the weights that are trained again."""
        if wanted == self.is_in_place:
            return
        for name, value in self.network.state_dict().items():
            held = value.clone()
            value.copy_(self.values[name])
            self.values[name] = held
        self.is_in_place = wanted

    def move_to(self, device: torch.device) -> None:
        """Keep it where the weights are."""
        self.values = {name: value.to(device) for name, value in self.values.items()}

    def load(self, values: dict[str, Any]) -> None:
        """Go on from what a checkpoint holds.

        Raises:
            CorruptObject: it holds none, or that of another network.
        """
        own = {name: tuple(value.shape) for name, value in self.values.items()}
        if {name: tuple(value.shape) for name, value in values.items()} != own:
            raise CorruptObject("checkpoint: its moving average is of other weights than its own: delete it")
        self.values = {name: values[name].to(self.values[name].device).clone() for name in own}
