"""The Dockerfile, instruction by instruction, and its install script against the lock; no image is built here."""

import fnmatch
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from heimdall_assets.cli import main
from heimdall_assets_tests.package_names import ROOT

TEXT = (ROOT / "deploy" / "Dockerfile").read_text()
INSTRUCTIONS = [
    tuple(line.split(None, 1))
    for line in re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^\s*#.*\n", "", TEXT)).splitlines()
    if line.strip()
]
STAGES = [index for index, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM"]
LAST = INSTRUCTIONS[STAGES[-1] :]
SCRIPT = ROOT / "deploy" / "install.sh"


def list_of(name: str, among=INSTRUCTIONS) -> list[str]:
    return [rest for instruction, rest in among if instruction == name]


def test_only_known_instructions_and_none_that_fetches_by_itself():
    assert {name for name, _ in INSTRUCTIONS} == {
        "ARG", "FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "HEALTHCHECK", "CMD",
    }  # fmt: skip
    assert not [rest for rest in list_of("RUN") if re.search(r"curl|wget|https?://", rest)]


def test_every_stage_begins_with_one_image_of_a_stated_version():
    arguments = dict(rest.split("=", 1) for rest in list_of("ARG") if "=" in rest)
    assert len(STAGES) == 2
    for rest in list_of("FROM"):
        assert rest.split()[0] == "${PYTHON_IMAGE}"
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", arguments["PYTHON_IMAGE"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", arguments["UV_VERSION"])


def test_who_runs_is_not_root_and_cannot_become_it():
    assert list_of("USER", LAST) == ["10001:10001"]
    after = LAST[[name for name, _ in LAST].index("USER") :]
    assert {name for name, _ in after} == {"USER", "WORKDIR", "HEALTHCHECK", "CMD"}


def is_sent(path: str) -> bool:
    """Return whether .dockerignore lets a path of the checkout into the build: its last rule that matches decides."""
    sent = True
    for rule in (ROOT / ".dockerignore").read_text().splitlines():
        if not rule or rule.startswith("#"):
            continue
        pattern = rule.removeprefix("!").removeprefix("**/")
        parts = [path, *map(str, Path(path).parents), Path(path).name, *Path(path).parts]
        if pattern == "*" or any(fnmatch.fnmatch(part, pattern) for part in parts):
            sent = rule.startswith("!")
    return sent


def test_what_is_copied_is_there_and_sent_to_the_build():
    for rest in list_of("COPY"):
        *sources, _ = rest.split()
        if not sources[0].startswith("--from="):
            for source in sources:
                assert (ROOT / source).exists(), source
                assert is_sent(source), source


@pytest.mark.parametrize(
    "path",
    [".env", "deploy/.env", ".git/config", ".heimdall/heimdall.db", "deploy/k8s/secrets.yaml", ".venv/bin/python",
     "heimdall_assets/__pycache__/x.pyc", "shared/data"],
)  # fmt: skip
def test_what_is_no_part_of_the_image_is_not_even_sent(path: str):
    assert not is_sent(path)


def test_no_secret_is_an_argument_or_a_variable():
    for rest in [*list_of("ARG"), *list_of("ENV")]:
        assert not re.search(r"PASSWORD|SECRET|TOKEN|\bKEY|://", rest), rest


def test_the_hash_seed_is_fixed_and_the_home_is_a_volume_s():
    told = dict(re.findall(r"(\w+)=(\S+)", " ".join(list_of("ENV", LAST))))
    assert told["PYTHONHASHSEED"] == "42"
    assert told["HEIMDALL_HOME"] in list_of("WORKDIR", LAST)


def test_commands_of_the_image_are_those_of_the_command_line():
    (check,) = re.findall(r"CMD (\[.*\])", list_of("HEALTHCHECK")[0])
    for words in (json.loads(check), json.loads(list_of("CMD", LAST)[0])):
        assert words[0] == "heimdall"
        assert words[1] in [*main.commands, "--help"]


# --- what the install script makes of its arguments


def run_script(*arguments: str, folder: Path = ROOT, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", SCRIPT, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def ask_script(*arguments: str) -> list[str]:
    """Return the words that the script would run the installer with."""
    return run_script(*arguments, UV="echo").stdout.split()


def test_both_images_are_held_to_the_lock_and_compiled():
    for torch in ("registry", "cpu"):
        for step in ("dependencies", "package"):
            words = ask_script(step, torch, "ray")
            assert words[:5] == ["pip", "install", "--compile-bytecode", "--constraint", "requirements.lock"]
            assert ("--torch-backend" in words) == (torch == "cpu")


def test_extras_that_the_image_asks_for_are_there():
    text = (ROOT / "pyproject.toml").read_text()
    (extras,) = [rest.partition("=")[2] for rest in list_of("ARG") if rest.startswith("EXTRAS=")]
    words = ask_script("dependencies", "cpu", extras)
    assert [words[index + 1] for index, word in enumerate(words) if word == "--extra"] == extras.split(",")
    for extra in extras.split(","):
        assert re.search(rf"^{extra} = \[", text, re.MULTILINE), extra


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("dependencies", "rocm", "ray"), "TORCH: found rocm, expected registry or cpu"),
        (("everything", "cpu", "ray"), "step: found everything, expected dependencies or package"),
    ],
)
def test_another_word_is_refused_in_one_line(arguments: tuple[str, ...], said: str):
    done = run_script(*arguments, UV="echo")
    assert (done.returncode, done.stderr.strip(), done.stdout) == (2, said, "")


def make_wheel(folder: Path, name: str, version: str, needs: str = "") -> None:
    import zipfile

    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_the_lock_means_builds_without_cuda_too(tmp_path: Path):
    """By wheels of the same names, for the index of the real ones is no place for tests: +cpu keeps ``==``."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        pytest.skip("no uv here: expected it beside this Python")
    locked = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().split())
    for name in ("torch", "torchvision"):
        needs = f"Requires-Dist: torch=={locked['torch']}\n" if name == "torchvision" else ""
        make_wheel(tmp_path, name, f"{locked[name]}+cpu", needs)
    done = subprocess.run(
        [uv, "pip", "compile", "--quiet", "--no-index", "--find-links", tmp_path, "--no-header", "--no-annotate",
         "--constraint", ROOT / "requirements.lock", "-"],
        input="torch>=2.15,<2.16\ntorchvision>=0.29,<0.30\n", cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"{name}=={locked[name]}+cpu" for name in ("torch", "torchvision")]
