"""Programs that a process without the rest of the package runs, and what they need."""

import os
import subprocess
import sys
from pathlib import Path

from heimdall_assets_tests.package_names import ROOT

NEEDED = ("numpy", "scipy", "pyproj", "onnxruntime")
"""All that a predictor needs."""

HEAVY = (
    "torch", "torchvision", "lightning", "timm", "dagster", "mlflow", "pandas", "pyarrow", "pydantic", "onnx",
    "sqlalchemy", "rfc8785", "annotated_types", "yaml", "click", "rich", "jinja2", "boto3", "obstore", "joblib",
    "matplotlib", "sigmf",
)  # fmt: skip
"""What the rest of the package uses."""

ASK = """
import json, sys
from heimdall_assets.inference import Predictor, Receiver
def ask(folder, file):
    receivers = [Receiver(**told) for told in json.load(open(file))]
    return Predictor(folder).locate(receivers).describe()
"""

BLOCK = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"{{name}} is not to be loaded", name=name)
sys.meta_path.insert(0, Blocked())
"""


def run_program(
    program: str, *arguments: str, python: str = sys.executable, folder: Path | None = None, **more: str
) -> str:
    """Return what a program prints, run in a process of its own on this checkout; it must succeed."""
    done = subprocess.run(
        [python, "-c", program, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), **more},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
