"""Options of ``heimdall train`` that say where a training starts: from a model, or from where an earlier one ended.

Belongs here: the options, and which of them may stand together. Does not belong here: what they mean for settings
(``pipeline.trainings.starting``, ``running.earlier``).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from heimdall_assets.cli.settings.choosing import Asked
from heimdall_assets.cli.terminal.output import write_notice
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.places import read_places
from heimdall_assets.profiles.resolving import Setting
from heimdall_assets.specs import ModelSpec, Spec

if TYPE_CHECKING:
    from heimdall_assets.stores.home import Stores

NEWEST = "the newest run"
_RUN = re.compile(r"[0-9a-f]{8}(-[0-9a-f-]*)?")


@dataclass(frozen=True)
class Starting:
    """What was asked of the start.

    Attributes:
        model: what to start from; None: from scratch.
        resume: what goes on: a checkpoint, a run, or ``NEWEST``; None: nothing.
        freeze_backbone: whether the backbone stays as it starts.
    """

    model: str | None = None
    resume: str | None = None
    freeze_backbone: bool = False


def starting_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command, which gets a ``Starting`` as ``starting``."""

    @click.option(
        "--from",
        "start_model",
        metavar="MODEL",
        help="Start from the weights of a release, of a checkpoint by its digest, or of a file that a training left.",
    )
    @click.option("--freeze-backbone", is_flag=True, help="Keep the backbone as it starts; train what stands on it.")
    @click.option(
        "--resume",
        is_flag=False,
        flag_value=NEWEST,
        metavar="[CHECKPOINT]",
        help="Go on with the newest training, or with that of a release, checkpoint or run; --epochs N "
        "for more epochs than it had.",
    )
    @wraps(command)
    def taking(*args: Any, start_model: str | None, freeze_backbone: bool, resume: str | None, **others: Any) -> None:
        return command(*args, starting=Starting(start_model, resume, freeze_backbone), **others)

    return taking


def say_start(stores: "Stores", asked: Asked, starting: Starting) -> Asked:
    """Return what was asked with the start among it: a profile has another step size for fine-tuning.

    Raises:
        NotFound: there is no such model, checkpoint or file.
        InvalidInput: a file that is no weights.
    """
    if starting.model is None:
        return asked
    from heimdall_assets.pipeline.trainings.starting import find_checkpoint

    digest = find_checkpoint(stores, starting.model).digest
    said = {"TrainingSpec.start_from": Setting(f"sha256:{digest}", f"--from {starting.model}")}
    return replace(asked, shortcuts={**asked.shortcuts, **said})


def choose_start(stores: "Stores", specs: Sequence[Spec], starting: Starting) -> list[Spec]:
    """Return the settings of a run that starts where ``starting`` says; what follows from it is said on stderr.

    Raises:
        InvalidSetting: two starts, a backbone that stays frozen at random, or settings that do not go with the start.
        NotFound: there is no such model, checkpoint, file or run.
        InvalidInput: a file that is no weights, such as a pickle or a truncated one.
    """
    if starting.model is not None and starting.resume is not None:
        raise InvalidSetting("--from and --resume: expected one of them")
    chosen = list(specs)
    if starting.freeze_backbone:
        chosen = _freeze(chosen, starting)
    if starting.model is not None:
        from heimdall_assets.pipeline.trainings.starting import find_checkpoint, start_from

        started = start_from(starting.model, find_checkpoint(stores, starting.model), chosen)
    elif starting.resume is not None:
        started = _resume(stores, chosen, starting.resume)
    else:
        return chosen
    for line in started.notices:
        write_notice(line)
    return started.specs


def _freeze(specs: list[Spec], starting: Starting) -> list[Spec]:
    own = next((spec for spec in specs if isinstance(spec, ModelSpec)), ModelSpec.model_validate({}))
    if starting.model is None and starting.resume is None and not own.pretrained:
        raise InvalidSetting(
            "--freeze-backbone: found a backbone of random weights, expected --from MODEL or ModelSpec.pretrained=true"
        )
    fields = {name: value for name, value in own.dump().items() if name in own.model_fields_set}
    frozen = ModelSpec.model_validate(fields | {"freeze_backbone": True})
    return [spec for spec in specs if not isinstance(spec, ModelSpec)] + [frozen]


def _resume(stores: "Stores", specs: list[Spec], named: str) -> Any:
    from heimdall_assets.running.earlier import read_earlier_run, resume_run

    if named == NEWEST or _RUN.fullmatch(named):
        run = read_earlier_run(read_places(), stores, None if named == NEWEST else named)
        return resume_run(stores, run, specs)
    from heimdall_assets.pipeline.trainings.starting import find_checkpoint, go_on

    return go_on(stores.objects, named, find_checkpoint(stores, named), specs)
