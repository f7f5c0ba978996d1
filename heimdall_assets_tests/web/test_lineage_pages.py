"""Lineage pages: a published version is shown, everything else is refused, and a taken port is said in one line."""

import http.client
import socket

import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.places import read_places
from heimdall_assets.web.sites import build_lineage_site
from heimdall_assets_tests.lineage.world import make_world
from heimdall_assets_tests.web.running import serve_site


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    world = make_world(folder, 3)
    world.release(world.make_chain())
    return read_places({"HEIMDALL_HOME": str(folder)})


@pytest.fixture(scope="module")
def port(home):
    url = "https://models.example/lineage"
    with serve_site(lambda bound: build_lineage_site(bound, home.open_stores, url)) as port:
        yield port


def ask(port: int, path: str, method: str = "GET", host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def test_a_release_is_shown(home, port):
    status, page = ask(port, "/v1.0.0")
    assert status == 200
    for word in ("Where v1.0.0 comes from", "3 sessions", "TrainingSpec", "AVX2", "Station-A", "<svg"):
        assert word in page
    assert ask(port, "/v1.0.0", "HEAD") == (200, "")
    assert '<a href="/v1.0.0">' in ask(port, "/")[1]


@pytest.mark.parametrize(
    "path",
    ["/v9.9.9", "/1.0.0", "/latest", "/v1.0.0/", "/v1.0.0?x", "/../v1.0.0", "/%2e%2e/heimdall.db",
     "/v1.0.0/provenance.json", "/etc/passwd", "/v1.0.0%00", "/<script>"],
)  # fmt: skip
def test_what_is_no_published_version_is_not_found(port, path):
    status, said = ask(port, path)
    assert status == 404
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("target", ["v1.0.0", "*", "http://127.0.0.1/v1.0.0"])
def test_what_is_no_path_is_refused(port, target):
    assert ask(port, target)[0] in (400, 421)


def test_nothing_can_be_changed(port):
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(port, "/v1.0.0", method)[0] == 405


def test_only_a_browser_that_means_this_server_is_answered(port):
    assert ask(port, "/v1.0.0", host="evil.example")[0] == 421
    assert ask(port, "/v1.0.0", host="")[0] == 421
    for host in (f"localhost:{port}", "models.example"):
        assert ask(port, "/v1.0.0", host=host)[0] == 200


def test_a_damaged_provenance_is_said_and_not_shown(home, port):
    path = home.open_stores().releases.files.folder("v1.0.0") / "provenance.json"
    whole = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(whole.replace(b"anna", b"eve1"))
    record = home.open_stores().releases.find_record("v1.0.0")
    copy = home.open_stores().objects.local_path(record["provenance"])
    try:
        if copy.exists():
            copy.rename(copy.with_suffix(".away"))
        status, said = ask(port, "/v1.0.0")
    finally:
        path.write_bytes(whole)
        if copy.with_suffix(".away").exists():
            copy.with_suffix(".away").rename(copy)
    assert status == 503
    assert "provenance.json is damaged" in said


@pytest.mark.parametrize("option", ["--port", "--lineage-port"])
def test_a_port_in_use_is_one_line_and_nothing_is_started(home, monkeypatch, option):
    monkeypatch.setenv("HEIMDALL_HOME", str(home.home))
    with socket.socket() as taken, socket.socket() as free:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free.bind(("127.0.0.1", 0))
        other = "--lineage-port" if option == "--port" else "--port"
        ports = [option, str(taken.getsockname()[1]), other, str(free.getsockname()[1])]
        free.close()
        result = CliRunner().invoke(main, ["ui", *ports])
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert f"cannot be had (Address already in use); choose one with {option}" in line


def test_the_address_is_a_place():
    assert read_places({}).lineage_url == "http://127.0.0.1:3001"
    assert read_places({"HEIMDALL_LINEAGE_URL": "https://models.example/lineage/"}).lineage_url.endswith("/lineage")
    for wrong in ("models.example", "ftp://models.example", "http://", "http://a:b", "http://a/?q=1", "http://a:99999"):
        with pytest.raises(InvalidSetting, match="HEIMDALL_LINEAGE_URL: found"):
            read_places({"HEIMDALL_LINEAGE_URL": wrong})
