"""Simulated sessions at rest: drawn from seeds, stored, approved, labelled ``simulated`` for ever."""

import io
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from joblib import Parallel, cpu_count, delayed

from heimdall_assets.domain import ApprovalStatus, ImportBatch
from heimdall_assets.manifests import NPY_MEDIA_TYPE
from heimdall_assets.simulation.network import simulate_session
from heimdall_assets.specs import SimulationSpec
from heimdall_assets.stores.home import Stores

CHUNK = 4  # sessions a process makes before it reports
