"""Kills a writer at each of its calls in turn, on a copy of ``FOLDER/base`` each: ``python -m ... FOLDER``.

A process of its own: forking is only safe where there are no threads.
"""

import os
import shutil
import sys
from pathlib import Path

from heimdall_assets.stores.objects.folder import FolderObjectStore
from heimdall_assets_tests.stores.faults import Deadly
from heimdall_assets_tests.stores.promises import work


def main(folder: Path) -> None:
    for when in ("before", "after"):
        for at in range(1, 1000):
            root = folder / f"{at:03}-{when}"
            shutil.copytree(folder / "base", root)
            if _run(root, folder / "source", at, when == "after") == 0:
                break


def _run(root: Path, source: Path, at: int, after: bool) -> int:
    child = os.fork()
    if child == 0:
        told = os.open(root.with_suffix(".told"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        work(
            FolderObjectStore(root, files=Deadly(at, after)), source, lambda line: os.write(told, f"{line}\n".encode())
        )
        os._exit(0)
    return os.waitpid(child, 0)[1]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
