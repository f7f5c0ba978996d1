"""Plain files: written whole where somebody named a place, nothing else touched there, and never over a hand's edit."""

import os
import threading
from pathlib import Path

import pytest

from heimdall_assets.dagster_home import prepare_dagster_home
from heimdall_assets.errors import StorageError
from heimdall_assets.stores.plain_files import write_missing_file, write_named_file
from heimdall_assets_tests.homes import make_places


def test_a_named_file_is_replaced_and_its_neighbours_stay(tmp_path: Path):
    page, neighbour = tmp_path / "page.html", tmp_path / ".tmp-0123456789abcdef"
    neighbour.write_bytes(b"another program's")
    write_named_file(page, b"first")
    write_named_file(page, b"second")
    assert page.read_bytes() == b"second"
    assert {path.name for path in tmp_path.iterdir()} == {page.name, neighbour.name}
    assert page.stat().st_mode & 0o777 == 0o666 & ~_read_umask()


def _read_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_a_link_stays_a_link_and_a_relative_name_is_one_of_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "link.html").symlink_to("there/page.html")
    write_named_file(Path("link.html"), b"page")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "there" / "page.html").read_bytes() == b"page"


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path):
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_named_file(pipe, b"page")
    reader.join(10)
    assert got == [b"page"]
    assert pipe.is_fifo()


def test_a_place_that_takes_no_file_is_named(tmp_path: Path):
    with pytest.raises(StorageError, match=r"absent/page\.html: could not be stored \(ENOENT"):
        write_named_file(tmp_path / "absent" / "page.html", b"page")
    with pytest.raises(StorageError, match=r"could not be written \(EISDIR"):
        write_named_file(tmp_path, b"page")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"file: could not be made \(EEXIST"):
        write_missing_file(tmp_path / "file" / "dagster.yaml", b"x")


def test_what_was_edited_by_hand_stays(tmp_path: Path):
    places = make_places(tmp_path / "home")
    settings = prepare_dagster_home(places) / "dagster.yaml"
    assert "max_concurrent_runs: 1" in settings.read_text()
    settings.write_text("# mine\n")
    assert prepare_dagster_home(places) == settings.parent
    assert settings.read_text() == "# mine\n"
    assert [path.name for path in settings.parent.iterdir()] == ["dagster.yaml"]
