"""A lock names its holder, and ends with the last process that has it, however that ends."""

import subprocess
import sys
import time

import pytest

from heimdall_assets.errors import Refused, StorageError
from heimdall_assets.stores.locks import hold_lock


def test_a_held_lock_is_refused_by_the_name_of_its_holder(tmp_path):
    path = tmp_path / "home" / "page.lock"
    with hold_lock(path, "process 7 of here"), pytest.raises(Refused, match=r"held by process 7 of here$"):
        hold_lock(path, "me").__enter__()
    with hold_lock(path, "me"):
        assert path.read_text() == "me\n"


def test_a_child_that_was_handed_it_keeps_it(tmp_path):
    path = tmp_path / "page.lock"
    with hold_lock(path, "the parent") as lock:
        command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(lock,))
        other = subprocess.Popen(command, stdin=subprocess.PIPE)
    with pytest.raises(Refused, match="held by the parent"):
        hold_lock(path, "me").__enter__()
    child.kill()
    child.communicate()
    with hold_lock(path, "me"):
        pass
    other.communicate()


def test_whoever_may_wait_has_it_once_its_holder_ends(tmp_path):
    path = tmp_path / "opening.lock"
    with hold_lock(path, "the parent") as lock:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5)"], pass_fds=(lock,))
    with hold_lock(path, "me", wait_s=60.0):
        assert child.wait(10) == 0
        began_s = time.monotonic()
        with pytest.raises(Refused, match=r"held by me$"):
            hold_lock(path, "another", wait_s=0.3).__enter__()
        assert time.monotonic() - began_s >= 0.3


def test_a_link_is_no_lock(tmp_path):
    (tmp_path / "page.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="ELOOP"):
        hold_lock(tmp_path / "page.lock", "me").__enter__()
