"""One measurement: `wrk` on one core asks a server that is held to the other.

Owns what a measurement is, and that the machine is quiet before it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

SERVER_CORE, LOAD_CORE = "0", "1"
_LUA = Path(__file__).with_name("bodies.lua")


@dataclass(frozen=True)
class Load:
    """What a server did for a while.

    Attributes:
        rate: Requests answered a second.
        p50_ms: Median latency.
        p99_ms: Latency that one request in a hundred exceeded.
        errors: Requests without an answer, or with a status other than 2xx and 3xx.
        cpu_us: Processor microseconds of the server a request.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_us: float


def check_tools() -> None:
    """Exit with what to install where something is missing."""
    for tool, package in (("wrk", "wrk"), ("taskset", "util-linux")):
        if shutil.which(tool) is None:
            sys.exit(f"{tool}: must be installed, got nothing. Run: sudo apt-get install {package}")
    if not {0, 1} <= os.sched_getaffinity(0):
        sys.exit("cores: must have cores 0 and 1, one for the server and one for the load.")


def measure(
    server: int, url: str, bodies: Path, *, connections: int, seconds: int, quiet: float
) -> Load:
    """Ask for `seconds`, over kept connections, each sending its next request when it has the answer.

    Args:
        server: Process id of the server.
        url: Where to POST.
        bodies: File of request bodies, one a line, sent in turn.
        connections: Requests under way at any time.
        seconds: How long; whole seconds, `wrk` knows no others.
        quiet: Seconds without work after which the server has done what it put off.
    """
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    command += ["--timeout", "30s", "-s", str(_LUA), url]
    before = cpu_seconds(server)
    done = subprocess.run(
        command,
        env={**os.environ, "BENCH_BODIES": str(bodies)},
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(done.stdout.splitlines()[-1])
    settle(server, quiet)  # what it still had to do belongs to it, not to the next
    count = max(said["requests"], 1)
    return Load(
        rate=said["requests"] / (said["duration"] / 1e6),
        p50_ms=said["p50"] / 1000,
        p99_ms=said["p99"] / 1000,
        errors=said["errors"],
        cpu_us=(cpu_seconds(server) - before) / count * 1e6,
    )


def settle(server: int, quiet: float, patience: float = 10.0) -> None:
    """Return when the server has been idle for `quiet` seconds, or after `patience`."""
    until = time.monotonic() + patience
    spent, since = cpu_seconds(server), time.monotonic()
    while time.monotonic() < min(until, since + quiet):
        time.sleep(0.05)
        now = cpu_seconds(server)
        if now - spent > 0.01:
            since = time.monotonic()
        spent = now


def cpu_seconds(server: int) -> float:
    """Return the processor time of a process and of all it started that still live."""
    leader = psutil.Process(server)
    spent = 0.0
    for process in (leader, *leader.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            spent += times.user + times.system
    return spent
