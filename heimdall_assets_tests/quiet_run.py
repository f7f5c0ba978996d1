"""A program: the commands of a user who has nothing yet, from simulated sessions to a verified release, in one process.

``python -m heimdall_assets_tests.quiet_run`` runs them in the home that the environment names. ``test_what_is_opened``
starts it where every file that it opens and every name that it asks for is seen.
"""

from heimdall_assets.cli import main
from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets.places import read_places
from heimdall_assets_tests.homes import SIMULATION, ignore

SETTINGS = {
    "ModelSpec": {
        "backbone_size": "atto",
        "width": 16,
        "num_layers": 1,
        "num_heads": 2,
    },  # sees spectrograms: loads timm
    "TrainingSpec": {"max_epochs": 1, "num_threads": 1},
    "EvaluationSpec": {"num_bootstrap": 100},
}


def run(*arguments: str) -> None:
    main(list(arguments), standalone_mode=False)


if __name__ == "__main__":
    stores = read_places().open_stores()
    import_simulated(stores, SIMULATION.model_copy(update={"num_sessions": 12}), "demo", ignore)
    run(
        "train",
        "--reason",
        "to see what it opens",
        *(f"--set={spec}.{name}={value}" for spec, fields in SETTINGS.items() for name, value in fields.items()),
    )
    run("models", "promote", "latest", "--by", "anna", "--reason", "it is the only one")
    run("predict", "latest", str(stores.measurements.list_sessions()[0]["id"]))
    run("verify", "latest")
