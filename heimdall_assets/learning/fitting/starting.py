"""Starting from a fitted model: its weights in a network that was built for other data.

Belongs here: whether they fit, and what of the new data's statistics gives way. Does not belong here: where a model
rests (stores).
"""

from typing import Any

import torch
from torch import nn

from heimdall_assets.errors import InvalidInput
from heimdall_assets.learning.fitting.fitted import FittedModel


def load_start(network: nn.Module, model: FittedModel) -> dict[str, Any]:
    """Give ``network`` the weights of ``model``; return the statistics that belong to them.

    Raises:
        InvalidInput: the model is of another architecture, or its inputs are other ones.
    """
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: value.shape for name, value in model.weights.items()}
    if own != found:
        name = sorted(item for item in own.keys() | found.keys() if own.get(item) != found.get(item))[0]
        raise InvalidInput(
            f"TrainingSpec.start_from: {name} is {found.get(name, 'missing')} in that model, expected "
            f"{own.get(name, 'none')}: it is of another architecture, or was fitted on other inputs"
        )
    network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in model.weights.items()})
    return dict(model.statistics)
