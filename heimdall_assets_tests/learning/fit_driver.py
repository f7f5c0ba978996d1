"""A fit in a process of its own that is killed after a number of steps: ``python -m ... FOLDER SETTINGS STEPS``."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import lightning

from heimdall_assets.learning.fitting.hooks import Hooks
from heimdall_assets.specs import MachineSpec, TrainingSpec
from heimdall_assets_tests.learning.toy_task import fit_toy


class Killer(lightning.Callback):
    """Kills its process, with a signal that nobody can catch, in the middle of step ``num_steps``."""

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        if module.num_steps == self.num_steps:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    folder, settings, num_steps = sys.argv[1:]
    fit_toy(
        Path(folder),
        TrainingSpec.model_validate(json.loads(settings)),
        machine=MachineSpec(accelerator="cpu", checkpoint_every_steps=2),
        hooks=Hooks(callbacks=[Killer(int(num_steps))]),
    )
