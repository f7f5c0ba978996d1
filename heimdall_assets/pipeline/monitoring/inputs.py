"""Inputs: new sessions beside those that the champion learned from.

Belongs here: which rows are compared. Does not belong here: the tests and their correction (``evaluation.drift``), what
follows from it (``watching``).
"""

import pandas as pd

from heimdall_assets.evaluation.drift import Shift, find_shifts
from heimdall_assets.kinds import APPROVED_MEASUREMENTS, TRAIN_SPLIT, VAL_SPLIT
from heimdall_assets.learning.assembly import assemble_sessions
from heimdall_assets.locating.path_loss import fit_level_model
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.specs import MonitoringSpec, TimingSpec
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.objects.tables import load_table


def compare_with_training(stores: Stores, model: Manifest, rows: pd.DataFrame, limits: MonitoringSpec) -> list[Shift]:
    """Return where new rows differ from what an exported model learned from (``evaluation.drift.find_shifts``).

    Args:
        stores: of this home.
        model: its manifest.
        rows: ``domain.APPROVED_COLUMNS``, of the new sessions alone.
        limits: from when on a difference counts.
    """
    learned = set()
    for kind in (TRAIN_SPLIT, VAL_SPLIT):
        split = read_parent(stores.objects, model, kind)
        learned |= {str(name) for name in load_table(stores.objects, split.artifacts["table"])["session_id"]}
    snapshot = read_parent(stores.objects, model, APPROVED_MEASUREMENTS)
    before = load_table(stores.objects, snapshot.artifacts["table"])
    before = before[before["session_id"].isin(learned)]
    sessions = assemble_sessions(before, None, None, None, TimingSpec())  # levels and places alone
    return find_shifts(before, rows, fit_level_model(sessions).path_loss.exponent, limits)
