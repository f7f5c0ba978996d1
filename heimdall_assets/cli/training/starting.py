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

from heimdall_assets.cli.settings.choosing import Asked, Chosen, read_chosen
from heimdall_assets.cli.terminal.homes import open_home
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
        search: whose settings are taken; None: nobody's.
    """

    model: str | None = None
    resume: str | None = None
    freeze_backbone: bool = False
    search: str | None = None


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
    @click.option("--search", metavar="SEARCH", help="Take what a search found: latest, or its first digits.")
    @wraps(command)
    def taking(*args: Any, start_model: str | None, **others: Any) -> None:
        said = {name: others.pop(name) for name in ("resume", "freeze_backbone", "search")}
        return command(*args, starting=Starting(start_model, **said), **others)

    return taking


def read_started(asked: Asked, starting: Starting) -> "tuple[Stores, Chosen, str | None]":
    """Return the opened home, what somebody chose with what it starts from, and whose training goes on.

    As ``read_chosen`` says, and the digest of a checkpoint; None: no training goes on.

    Settings are checked before a home is looked for; a start that is named is one of them, for a profile has another
    step size for fine-tuning.
    """
    if starting.model is not None:
        stores = open_home()
        chosen = read_chosen(_say_start(stores, asked, starting.model))
    else:
        chosen = read_chosen(asked)
        stores = open_home()
    specs, resumes = choose_start(stores, chosen.specs, starting)
    if starting.search is not None:
        specs = _take_found(stores, starting.search, specs)
    return stores, replace(chosen, specs=specs), resumes


def _take_found(stores: "Stores", named: str, specs: list[Spec]) -> list[Spec]:
    """Return specs on top of what a search found."""
    from heimdall_assets.pipeline.tracing.searches import find_past, take_settings

    past = find_past(stores, named)
    merged, told = take_settings(stores.objects, past.manifest, specs)
    write_notice(f"search {past.manifest.digest[:12]}: trains with {past.manifest.summary['best']}")
    for line in told:
        write_notice(line)
    return merged


def _say_start(stores: "Stores", asked: Asked, model: str) -> Asked:
    """Return what was asked with the start among it."""
    from heimdall_assets.pipeline.trainings.starting import find_checkpoint

    digest = find_checkpoint(stores, model).digest
    said = {"TrainingSpec.start_from": Setting(f"sha256:{digest}", f"--from {model}")}
    return replace(asked, shortcuts={**asked.shortcuts, **said})


def choose_start(stores: "Stores", specs: Sequence[Spec], starting: Starting) -> tuple[list[Spec], str | None]:
    """Return the settings of a run that starts where ``starting`` says, and whose training goes on.

    What follows from it is said on stderr.

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
        return chosen, None
    for line in started.notices:
        write_notice(line)
    return started.specs, started.resumes


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
    from heimdall_assets.pipeline.trainings.continuing import go_on
    from heimdall_assets.pipeline.trainings.starting import find_checkpoint

    return go_on(stores, named, find_checkpoint(stores, named), specs)
