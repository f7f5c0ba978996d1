"""A worker of a planned search: ``python -m heimdall_assets_tests.pipeline.search_worker SLOT SPEC``.

Opens the home that the environment names, says ``ready``, begins when it is told to by a line on stdin, and prints the
numbers of the trials that ended here as JSON.
"""

import json
import sys

import optuna.samplers  # noqa: F401

import heimdall_assets.learning.fitting.training  # noqa: F401
from heimdall_assets.pipeline.stages.hyperparameter_search import work_on_search
from heimdall_assets.places import read_places
from heimdall_assets.specs import SearchSpec
from heimdall_assets_tests.pipeline.searched import make_order, open_searched

if __name__ == "__main__":
    stores, splits = open_searched(read_places())
    order = make_order(splits, SearchSpec(**json.loads(sys.argv[2])))
    ended: list[int] = []
    print("ready", flush=True)
    sys.stdin.readline()
    work_on_search(stores, order, f"run/{sys.argv[1]}", lambda trial: ended.append(trial.number))
    print(json.dumps(ended))
