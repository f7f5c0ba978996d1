"""A real S3 service for tests: one node of OpenStack Swift on 127.0.0.1, thrown away afterwards.

It checks signatures and digests, knows ranges and uploads in parts. It has one account, whose key and secret are drawn
anew each time.
"""

import getpass
import importlib.util
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from heimdall_assets_tests.memory import find_memory
from heimdall_assets_tests.servers import NoServer, die_with_parent, find_free_port

_START_S = 60.0
_STOP_S = 8.0
_PARTS = ("account", "container", "object", "proxy")

_SWIFT = """\
[swift-hash]
swift_hash_path_suffix = {suffix}
[storage-policy:0]
name = gold
default = yes
[swift-constraints]
max_file_size = 5368709122
"""

_COMMON = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {root}
devices = {root}/devices
mount_check = false
log_level = WARNING
log_to_console = true
recon_cache_path = {root}/recon
fallocate_reserve = 0
"""

_STORE = """\
[pipeline:main]
pipeline = {part}-server
[app:{part}-server]
use = egg:swift#{part}
"""

_PROXY = """\
[pipeline:main]
pipeline = catch_errors gatekeeper cache listing_formats bulk s3api tempauth copy slo dlo etag-quoter proxy-server
[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
location = us-east-1
min_segment_size = 1
allow_multipart_uploads = true
[filter:tempauth]
use = egg:swift#tempauth
user_heimdall_admin = {secret} .admin
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:copy]
use = egg:swift#copy
[filter:etag-quoter]
use = egg:swift#etag_quoter
enable_by_default = true
"""

_RINGS = """\
import sys
from swift.common.ring import RingBuilder
root, *ports = sys.argv[1:]
for part, port in zip(("account", "container", "object"), ports):
    builder = RingBuilder(4, 1, 1)
    where = {"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "d1"}
    builder.add_dev({"id": 0, "weight": 1, **where})
    builder.rebalance()
    builder.get_ring().save(f"{root}/{part}.ring.gz")
"""


@dataclass(frozen=True)
class S3Server:
    """A running service; its buckets are as good as empty and go with it."""

    endpoint: str
    key: str
    secret: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which tools of S3 find it."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def create_bucket(self) -> str:
        """Return the name of a new bucket."""
        import boto3

        name = f"test-{secrets.token_hex(6)}"
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=name)
        client.close()
        return name


@contextmanager
def run_s3() -> Iterator[S3Server]:
    """Give a throw-away S3 service, ready to be asked.

    Raises:
        NoServer: Swift is not installed here.
        RuntimeError: it did not start; the message holds its log.
    """
    if importlib.util.find_spec("swift") is None:
        raise NoServer("no S3 service: expected the package swift")
    place = find_memory() or "/tmp"
    with tempfile.TemporaryDirectory(prefix="heimdall-s3-", dir=place, ignore_cleanup_errors=True) as name:
        root = Path(name)
        ports = dict(zip(_PARTS, (find_free_port() for _ in _PARTS), strict=True))
        secret = secrets.token_hex(16)
        _configure(root, ports, secret)
        processes = [_start(root, part) for part in _PARTS]
        try:
            for part, process in zip(_PARTS, processes, strict=True):
                _wait(root, part, ports[part], process)
            yield S3Server(f"http://127.0.0.1:{ports['proxy']}", "heimdall:admin", secret)
        finally:
            _stop(processes)


def _configure(root: Path, ports: dict[str, int], secret: str) -> None:
    for folder in ("devices/d1", "recon"):
        (root / folder).mkdir(parents=True)
    (root / "swift.conf").write_text(_SWIFT.format(suffix=secrets.token_hex(8)))
    stores = [str(ports[part]) for part in _PARTS[:3]]
    made = subprocess.run([sys.executable, "-W", "ignore", "-c", _RINGS, root, *stores], capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError(f"S3: its rings could not be made\n{made.stderr}")
    for part in _PARTS:
        own = _PROXY.format(secret=secret) if part == "proxy" else _STORE.format(part=part)
        common = _COMMON.format(port=ports[part], root=root, user=getpass.getuser())
        (root / f"{part}.conf").write_text(common + own)


def _start(root: Path, part: str) -> "subprocess.Popen[bytes]":
    with open(root / f"{part}.log", "wb") as log:
        return subprocess.Popen(
            [Path(sys.executable).parent / f"swift-{part}-server", root / f"{part}.conf"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def _wait(root: Path, part: str, port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    log = (root / f"{part}.log").read_text(errors="replace")
    raise RuntimeError(f"S3: its {part} server is not ready after {_START_S} s\n{log[-4000:]}")


def _stop(processes: "list[subprocess.Popen[bytes]]") -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        if process.poll() is None:
            process.kill()
        process.wait()
