"""Checkpoints that outlive their fit: safetensors for what is a tensor, JSON for the rest, and nothing else is read.

Belongs here: both ways between a checkpoint and its two files, which are checked whole, and what a longer fit may go on
from. Does not belong here: where they are kept (``CheckpointFiles``), for how long (retention).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as decode_safetensors
from safetensors.torch import save as encode_safetensors
from torch import Tensor

from heimdall_assets.errors import CorruptObject, InvalidInput, NotFound
from heimdall_assets.learning.fitting.checkpoints import (
    LAST,
    NUM_KEPT,
    PARTS,
    CheckpointFiles,
    HandedCheckpointIO,
    find_best_epochs,
    list_judged,
    load_checkpoint,
    name_epoch,
)
from heimdall_assets.learning.fitting.continuing import check_same_fit
from heimdall_assets.manifests import decode_canonical_json, encode_canonical_json

FORMAT = "heimdall-checkpoint/1"
TENSOR, NUMBERED = "$tensor", "$numbered"
TENSORS, REST = ".safetensors", ".json"
_NO_PICKLE = "a file that torch.save or pickle made, which is never read: it could run code"


@dataclass(frozen=True)
class Kept:
    """A checkpoint that was kept.

    Attributes:
        about: JSON values: ``model``, ``training``, ``augmentation`` (specs), ``parents`` (digests of the splits),
            ``statistics`` (what normalisation needs).
        checkpoint: all that a fit goes on from.
    """

    about: dict[str, Any]
    checkpoint: dict[str, Any]

    @property
    def weights(self) -> dict[str, Tensor]:
        """The network's weights as validation judged them, by name."""
        judged = list_judged(self.checkpoint)
        return {name.removeprefix("network."): value for name, value in judged.items()}

    @property
    def epoch(self) -> int:
        """Epochs that were done."""
        return len(self.checkpoint["history"])


def encode_kept(name: str, kept: Kept) -> dict[str, bytes]:
    """Return the two files of a checkpoint by name; equal checkpoints give equal bytes.

    Raises:
        InvalidInput: it holds something that is neither a tensor nor a JSON value.
    """
    tensors: dict[str, Tensor] = {}
    state = _take_apart(kept.checkpoint, "", tensors)
    rest = {"format": FORMAT, "about": kept.about, "state": state}
    ordered = {key: tensors[key].detach().cpu().contiguous().clone() for key in sorted(tensors)}
    return {f"{name}{TENSORS}": encode_safetensors(ordered), f"{name}{REST}": encode_canonical_json(rest)}


def decode_kept(name: str, read: Callable[[str], bytes]) -> Kept:
    """Return the checkpoint that ``encode_kept`` gave two files for.

    Args:
        name: of the checkpoint, without an ending.
        read: name of a file -> its bytes.

    Raises:
        NotFound: a file is not there.
        CorruptObject: a file is cut off or damaged, a pickle, or the two do not belong together.
    """
    rest = _decode_rest(f"{name}{REST}", read(f"{name}{REST}"))
    tensors = _decode_tensors(f"{name}{TENSORS}", read(f"{name}{TENSORS}"))
    used: set[str] = set()
    try:
        checkpoint = _put_together(rest["state"], tensors, used)
        if not isinstance(checkpoint, dict) or any(part not in checkpoint for part in PARTS):
            raise ValueError(f"expected {', '.join(PARTS)} in its state")
        if len(checkpoint["history"]) and not all("val_loss" in record for record in checkpoint["history"]):
            raise ValueError("an epoch of its history has no val_loss")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CorruptObject(f"{name}{REST}: {type(error).__name__}: {error!s:.160}") from error
    if used != tensors.keys():
        odd = sorted(used ^ tensors.keys())[0]
        raise CorruptObject(f"checkpoint {name}: {odd!r:.80} is in one of its two files alone: they do not match")
    return Kept(rest["about"], checkpoint)


def keep_checkpoints(checkpoints: CheckpointFiles, kept: CheckpointFiles, about: dict[str, Any]) -> list[str]:
    """Keep of a fit that is done its best epochs, its last state and every other that it kept itself; return names."""
    names = [LAST, *(name_epoch(int(record["epoch"])) for record in load_checkpoint(checkpoints, LAST)["history"])]
    done = []
    for name in names:
        try:
            checkpoint = load_checkpoint(checkpoints, name)
        except NotFound:
            continue
        short = name.removesuffix(".ckpt")
        for file, data in encode_kept(short, Kept(about, checkpoint)).items():
            kept.write(file, data)
        done.append(short)
    return done


def list_needed_to_go_on(last: Kept) -> list[str]:
    """Return the names of the checkpoints that a longer fit needs beside the last one: its best epochs."""
    return [name_epoch(epoch).removesuffix(".ckpt") for epoch in find_best_epochs(last.checkpoint["history"], NUM_KEPT)]


def check_continues(last: Kept, asked: Mapping[str, Any]) -> None:
    """Return nothing if a fit with settings ``asked`` may go on from ``last``: the same fit, with more epochs.

    Args:
        last: the last state of the shorter fit.
        asked: as ``Kept.about``, of the longer one.

    Raises:
        InvalidInput: something else than epochs and patience differs, or there are no more epochs.
    """
    check_same_fit({part: last.about[part] for part in ("model", "augmentation", "parents", "training")}, asked)
    if asked["training"]["max_epochs"] <= last.epoch:
        raise InvalidInput(
            f"resume: found TrainingSpec.max_epochs {asked['training']['max_epochs']} after {last.epoch} that are "
            "done, expected more"
        )


def _take_apart(value: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[where] = value
        return {TENSOR: where}
    if isinstance(value, dict):
        if value and all(type(key) is int for key in value):
            parts = [[key, _take_apart(item, f"{where}/{key}", tensors)] for key, item in value.items()]
            return {NUMBERED: parts}
        if not all(isinstance(key, str) for key in value):
            raise InvalidInput(f"checkpoint: {where}: found keys that are no text, expected text")
        return {key: _take_apart(item, f"{where}/{key}", tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_take_apart(item, f"{where}/{place}", tensors) for place, item in enumerate(value)]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise InvalidInput(f"checkpoint: {where}: found {type(value).__name__}, expected a tensor or a JSON value")


def _put_together(value: Any, tensors: Mapping[str, Tensor], used: set[str]) -> Any:
    if isinstance(value, list):
        return [_put_together(item, tensors, used) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {TENSOR}:
        used.add(value[TENSOR])
        return tensors[value[TENSOR]]
    if value.keys() == {NUMBERED}:
        return {int(key): _put_together(item, tensors, used) for key, item in value[NUMBERED]}
    return {key: _put_together(item, tensors, used) for key, item in value.items()}


def _decode_rest(name: str, data: bytes) -> dict[str, Any]:
    try:
        _refuse_pickle(data)
        rest: Any = decode_canonical_json(data.decode())
        if not isinstance(rest, dict) or rest.get("format") != FORMAT:
            raise ValueError(f"found format {rest.get('format') if isinstance(rest, dict) else None!r}: {FORMAT}")
        for part in ("model", "training", "augmentation", "parents", "statistics"):
            if not isinstance(rest["about"][part], dict):
                raise ValueError(f"about.{part}: expected a JSON object")
        return rest
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        line = " ".join(str(error).split())
        raise CorruptObject(f"{name}: no kept checkpoint ({line:.160}): expected {FORMAT} as JSON") from error


def _decode_tensors(name: str, data: bytes) -> dict[str, Tensor]:
    try:
        _refuse_pickle(data)
        length = int.from_bytes(data[:8], "little")
        if len(data) < 8 or length > len(data) - 8:
            raise ValueError(f"{len(data)} bytes: expected a header of {length} bytes within them")
        decode_canonical_json(data[8 : 8 + length].decode())
        return decode_safetensors(data)
    except (ValueError, KeyError, RecursionError, SafetensorError) as error:
        line = " ".join(str(error).split())
        raise CorruptObject(f"{name}: not safetensors ({line:.160})") from error


def _refuse_pickle(data: bytes) -> None:
    if data[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise ValueError(f"found {_NO_PICKLE}")


def write_to_resume(kept: Kept, name: str, checkpoints: CheckpointFiles) -> None:
    """Write a kept checkpoint to where a running fit finds it as ``name``."""
    HandedCheckpointIO(checkpoints).save_checkpoint(kept.checkpoint, checkpoints.folder / name)
