"""Refusals: a stage that refuses most of its inputs stops, for what is left is not what was asked for.

Belongs here: counting, and saying why. Does not belong here: what makes one input unusable (``recordings``).
"""

import re
from typing import TYPE_CHECKING

from heimdall_assets.errors import Refused
from heimdall_assets.pipeline.work_pool import Progress
from heimdall_assets.specs import FeatureSpec, RecordingSpec

if TYPE_CHECKING:
    import pandas as pd

_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


def refuse_if_most(
    stage: str, refused: "pd.DataFrame", num_inputs: int, spec: RecordingSpec | FeatureSpec, progress: Progress
) -> None:
    """Tell how many inputs were refused, and stop where that is more than ``spec`` tolerates.

    What could be computed of the others is kept: it is found again where more is tolerated.

    Args:
        stage: its name.
        refused: ``measurement_id`` and ``reason`` of each.
        num_inputs: all of them, good and refused.
        spec: says what is tolerated.
        progress: told where any was refused.

    Raises:
        Refused: names the stage, how many of how many, the most frequent reason with an example, and the setting.
    """
    if not len(refused):
        return
    progress("of these refused", len(refused), num_inputs)
    if len(refused) <= spec.max_refused_fraction * num_inputs:
        return
    kinds = refused["reason"].map(_find_kind)
    counts = kinds.value_counts()
    example = refused[kinds == counts.index[0]].iloc[0]
    raise Refused(
        f"{stage}: refused {len(refused)} of {num_inputs} recordings, expected at most {spec.max_refused_fraction:.0%} "
        f"({type(spec).__name__}.max_refused_fraction); {counts.iloc[0]} of them as measurement "
        f"{example['measurement_id']}: {_strip_name(example['reason'])}"
    )


def _find_kind(reason: str) -> str:
    """Return what reasons of one kind share: all but the recording's name and its numbers."""
    return _NUMBER.sub("#", _strip_name(reason))


def _strip_name(reason: str) -> str:
    """Return a reason without the recording's name, which stands before the first colon."""
    name, _, rest = str(reason).partition(": ")
    return rest or name
