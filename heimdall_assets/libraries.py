"""Libraries: what those of others are told before they are imported: to report to nobody.

Belongs here: the one list of such switches, and throwing them. Does not belong here: what else MLflow is told
(``stores.experiments``), our own variables (``variables``). A library reads its switch when it is imported, and some
report at once (ONNX Runtime 1.31 makes a device id then): whoever imports one calls ``silence_libraries`` before.
"""

import os
from pathlib import Path

SILENCED = {
    "ONNX Runtime": ("ORT_DISABLE_TELEMETRY", "1"),
    "MLflow": ("MLFLOW_DISABLE_TELEMETRY", "true"),
    "Dagster": ("DAGSTER_DISABLE_TELEMETRY", "1"),
    "Hugging Face Hub": ("HF_HUB_DISABLE_TELEMETRY", "1"),
    "Weights & Biases": ("WANDB_ERROR_REPORTING", "false"),
}
"""Library -> the variable that ends its reports, and its value; what is set already wins."""


def silence_libraries() -> None:
    """Switch off the reports of every library, in this process and those that it starts."""
    for name, value in SILENCED.values():
        os.environ.setdefault(name, value)


def keep_fonts(folder: Path) -> None:
    """Have matplotlib keep its list of fonts in ``folder``, made when it draws, rather than in the user's own."""
    os.environ.setdefault("MPLCONFIGDIR", str(folder))
