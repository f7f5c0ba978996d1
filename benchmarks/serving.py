"""The service under load: 20 requests a second at a demo model, for minutes: `make bench-serving`.

One process of ``heimdall serve`` on 127.0.0.1; requests begin at fixed times whatever became of those before, so that a
slow answer is seen as such and delays no later question. A request is a session of five receivers with stored arrivals
and levels; the time is from its beginning to the whole answer. Resident memory is read once in ten seconds.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from heimdall_assets_tests.servers import find_free_port
from heimdall_assets_tests.service.cases import Client, make_home, make_session

HERE = Path(__file__).resolve().parent
PROGRAM = "from heimdall_assets.cli import main; main()"
NUM_CLIENTS = 16
LOOK_S = 10.0
IDLE_S = 5.0
"""A connection that was idle for longer is opened anew: the service ends it soon."""

WARM_S = 30.0
"""Memory counts as flat from then on."""


def start(home: Path, port: int) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "HEIMDALL_HOME": str(home), "HEIMDALL_TRACKING": "off", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "serve", "--port", str(port)], env=environment, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120.0
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if Client(port).ask("/readyz")[0] == 200:
                return process
        except OSError:
            pass
        time.sleep(0.2)
    raise SystemExit("the service did not start")


def read_rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def read_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ask_for(minutes: float, rate: float, port: int, pid: int) -> dict[str, Any]:
    """Return the times of all requests, the statuses, and the memory while they ran."""
    local = threading.local()
    body = make_session()
    times: list[float] = []
    statuses: list[int] = []
    memory: list[tuple[float, float]] = []
    began = time.monotonic()

    def ask(due: float) -> None:
        if time.monotonic() - getattr(local, "used", 0.0) > IDLE_S:
            if hasattr(local, "client"):
                local.client.close()
            local.client = Client(port)
        status, _ = local.client.locate(body)
        local.used = time.monotonic()
        times.append(time.monotonic() - due)
        statuses.append(status)

    def watch() -> None:
        while not ended.is_set():
            memory.append((time.monotonic() - began, read_rss_mb(pid)))
            ended.wait(LOOK_S)

    ended = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    cpu_s = read_cpu_s(pid)
    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        asked = []
        for number in range(round(minutes * 60.0 * rate)):
            due = began + number / rate
            time.sleep(max(0.0, due - time.monotonic()))
            asked.append(pool.submit(ask, due))
        for one in asked:
            one.result()
    took_s = time.monotonic() - began
    ended.set()
    watcher.join()
    ranked = sorted(times)
    warm = [mb for at, mb in memory if at >= WARM_S]
    return {
        "rate": rate,
        "minutes": minutes,
        "requests": len(times),
        "answered": statuses.count(200),
        "p50_ms": 1e3 * statistics.median(ranked),
        "p95_ms": 1e3 * ranked[int(0.95 * len(ranked))],
        "p99_ms": 1e3 * ranked[int(0.99 * len(ranked))],
        "largest_ms": 1e3 * ranked[-1],
        "cpu_ms_a_request": 1e3 * (read_cpu_s(pid) - cpu_s) / len(times),
        "took_s": took_s,
        "rss_mb": [(round(at), round(mb, 1)) for at, mb in memory],
        "rss_grew_mb": warm[-1] - warm[0],
    }


def write(result: dict[str, Any]) -> str:
    before, after = result["load"]
    asked = "yes" if result["p95_ms"] < 500.0 else "no"
    lines = [
        "# The service under load",
        "",
        "Written by `make bench-serving`; figures as measured.",
        "",
        f"{result['rate']:g} requests a second for {result['minutes']:g} minutes at one process of `heimdall serve` on "
        f"{result['processors']} processors, which other work shared: load of the machine {before:.1f} before and "
        f"{after:.1f} after. A network model of arrivals, sessions of five receivers; times from when one was due.",
        "",
        "| requests | answered | p50 ms | p95 ms | p99 ms | largest ms | processor ms a request |",
        "|---|---|---|---|---|---|---|",
        f"| {result['requests']:,} | {result['answered']:,} | {result['p50_ms']:.1f} | {result['p95_ms']:.1f} | "
        f"{result['p99_ms']:.1f} | {result['largest_ms']:.0f} | {result['cpu_ms_a_request']:.1f} |",
        "",
        f"p95 below 500 ms: {asked}. Resident memory grew by {result['rss_grew_mb']:.1f} MB from the "
        f"{WARM_S:g}th second to the end:",
        "",
        "| second | MB |",
        "|---|---|",
    ]
    step = max(1, len(result["rss_mb"]) // 12)
    lines += [f"| {at} | {mb} |" for at, mb in result["rss_mb"][::step]]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--home", type=Path, help="that has a champion; default: a small one is made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = options.home or make_home(Path(folder) / "home", 1)
        port, load = find_free_port(), [os.getloadavg()[0]]
        process = start(home, port)
        try:
            result = ask_for(options.minutes, options.rate, port, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30.0)
        load.append(os.getloadavg()[0])
    result |= {"load": load, "processors": os.cpu_count(), "exit": process.returncode}
    (HERE / "serving.json").write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    text = write(result)
    (HERE / "serving.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
