"""How fast is serving, beside what people use today?

    python benchmarks/serving.py                        # everything, about 11 minutes
    python benchmarks/serving.py --quick                # one model, 8 connections, about a minute
    python benchmarks/serving.py --quick --only hgb,mlflow,uvicorn
    python benchmarks/serving.py --write                # and renew the table and the plot in docs/

Three models of 20 features with missing values (gradient boosting, one-hot and logistic regression, imputation and
random forest) are fitted by the platform's own stages and registered in a real MLflow. Each server has one worker,
one OpenMP thread and core 0; `wrk` asks from core 1, the same rows of each, in the form that server documents. First
all must give the right answers; then they are asked in turns, the order changing from round to round. A ratio is of
the same round. MLServer and BentoML are installed into environments of their own under ~/.cache, and left out, with
the reason, where that fails.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.serving_peers import page, report  # noqa: E402
from benchmarks.serving_peers.environments import InstallError  # noqa: E402
from benchmarks.serving_peers.load import (  # noqa: E402
    LOAD_CORE,
    SERVER_CORE,
    Load,
    check_tools,
    measure,
)
from benchmarks.serving_peers.models import BODIES, FAMILIES, body_rows  # noqa: E402
from benchmarks.serving_peers.report import HEADLINE, Line, Results  # noqa: E402
from benchmarks.serving_peers.sides import SIDES, Canary, Constant, Evergreen, Model, Side  # noqa: E402
from tests.servers import free_port, run_process, start_mlflow  # noqa: E402

CONNECTIONS = (1, 8, 32)
ROUNDS, HEADLINE_ROUNDS = 3, 7
#: The farthest a probability may be from scikit-learn's.
TOLERANCE = 1e-5
START_SECONDS = 180


@dataclass
class Server:
    """A server that runs.

    Attributes:
        side: Which.
        process: The leader of its session.
        url: Where, without a path.
        bodies: File of request bodies by number of rows.
        alone: Seconds it takes for one request, by number of rows.
    """

    side: Side
    process: subprocess.Popen[bytes]
    url: str
    bodies: dict[int, Path] = field(default_factory=dict)
    alone: dict[int, float] = field(default_factory=dict)


def environment(own: dict[str, str]) -> dict[str, str]:
    """Return this process's environment without settings of the platform, one OpenMP thread, and what is given."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("EVERGREEN_", "MLFLOW_"))}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    path = (
        f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"  # mlflow starts uvicorn by name
    )
    return {**kept, **threads, "PYTHONPATH": str(ROOT), "PATH": path, **own}


@contextmanager
def start(side: Side, model: Model) -> Iterator[Server]:
    """Start a server on its core; it is not waited for."""
    port = free_port()
    scratch = model.scratch / f"{model.family}-{side.app_name}"
    scratch.mkdir()
    own = replace(model, scratch=scratch)
    command = ["taskset", "-c", SERVER_CORE, *side.command(own, port)]
    log = scratch / "log"
    with run_process(command, log, environment(side.environment(own, port))) as process:
        yield Server(side, process, f"http://127.0.0.1:{port}")


def check(server: Server, model: Model, truth: dict[str, Any]) -> float | None:
    """Wait for a server, see that it answers what scikit-learn does, and write its request bodies.

    Returns:
        How far its probabilities are from scikit-learn's at most; None where it answers none.
    """
    side = server.side
    farthest: float | None = None
    scratch = model.scratch / f"{model.family}-{side.app_name}"
    for rows, count in BODIES.items():
        bodies = [json.dumps(side.body(body_rows(rows, n))).encode() for n in range(count)]
        server.bodies[rows] = scratch / f"bodies-{rows}"
        server.bodies[rows].write_bytes(b"\n".join(bodies) + b"\n")
        url = server.url + side.path(model, rows)
        answer = first_answer(server, url, bodies[0], scratch / "log")
        said, right = side.read(answer), truth[str(rows)]
        if said is None:
            continue
        if said.codes != right["codes"]:
            sys.exit(f"{side.name}, {model.family}: must answer {right['codes']}, got {said.codes}")
        if said.chance is not None:
            pairs = zip(said.chance, right["chance"], strict=True)
            gap = max(abs(one - other) for one, other in pairs)
            if gap > TOLERANCE:
                sys.exit(
                    f"{side.name}, {model.family}: a probability must be within {TOLERANCE}, got {gap}"
                )
            farthest = max(farthest or 0.0, gap)
    return farthest


JSON = {"Content-Type": "application/json"}


def first_answer(server: Server, url: str, body: bytes, log: Path) -> Any:
    """Return the first answer of a server that is starting, None where it is no JSON."""
    import httpx

    until, last = time.monotonic() + START_SECONDS, "nothing"
    while time.monotonic() < until and server.process.poll() is None:
        try:
            response = httpx.post(url, content=body, headers=JSON, timeout=30)
            if response.status_code == 200:
                return response.json() if response.content[:1] == b"{" else None
            last = f"status {response.status_code}: {response.text[:200]}"
        except httpx.HTTPError as error:
            last = str(error)
        time.sleep(0.2)
    sys.exit(f"{url}: must answer, got {last}. Its log ends:\n{log.read_text()[-2000:]}")


def compare(
    model: Model, truth: dict[str, Any], sides: list[Side], lines: list[Line], rounds: int
) -> Results:
    """Start all servers of a model, ask them in turns, and stop them."""
    results: Results = defaultdict(list)
    with ExitStack() as stack:
        # All at once, but for the constant: its size is known when Evergreen has answered.
        first = [side for side in sides if not isinstance(side, Constant)]
        servers = [stack.enter_context(start(side, model)) for side in first]
        gaps = [check(server, model, truth) for server in servers]
        if len(first) < len(sides):
            model = replace(model, sizes=answer_sizes(servers[0], model))
            servers.append(stack.enter_context(start(Constant(), model)))
            gaps.append(check(servers[-1], model, truth))
        for server, gap in zip(servers, gaps, strict=True):
            said = "" if gap is None else f", probabilities within {gap:.0e}"
            print(f"  {model.family}: {server.side.name} answers as it must{said}", flush=True)
            time_alone(server, model)
            ask(server, model, Line(model.family, 1, 8), 1)  # to warm up
        for number in range(max(rounds, HEADLINE_ROUNDS if rounds == ROUNDS else 0)):
            for line in lines:
                if number < rounds or line == HEADLINE:
                    one_round(results, servers[:: -1 if number % 2 else 1], model, line)
    return results


def one_round(results: Results, servers: list[Server], model: Model, line: Line) -> None:
    """Ask every server once."""
    for server in servers:
        side = server.side
        if isinstance(side, Canary) and line != HEADLINE:
            continue
        # Long enough to answer every connection some times, however slow; shorter would flatter the slow.
        wanted = 3 * line.connections * server.alone[line.rows]
        load = ask(server, model, line, min(max(math.ceil(wanted), 1), 3))
        results[line, side.name].append(load)
        print(
            f"  {line.text:36}{side.name:12}{load.rate:>10,.0f}/s   p99 {load.p99_ms:8.2f} ms"
            f"   cpu {load.cpu_us:8.0f} us" + (f"   {load.errors} ERRORS" * bool(load.errors)),
            flush=True,
        )


def ask(server: Server, model: Model, line: Line, seconds: int) -> Load:
    """Measure one server."""
    url = server.url + server.side.path(model, line.rows)
    bodies = server.bodies[line.rows]
    return measure(
        server.process.pid,
        url,
        bodies,
        connections=line.connections,
        seconds=seconds,
        quiet=server.side.quiet,
    )


def time_alone(server: Server, model: Model) -> None:
    """Note how long a server takes for one request when it has no other."""
    import httpx

    for rows, path in server.bodies.items():
        url = server.url + server.side.path(model, rows)
        bodies = path.read_bytes().splitlines()[:5]
        with httpx.Client(timeout=60) as client:
            begun = time.perf_counter()
            for body in bodies:
                client.post(url, content=body, headers=JSON).raise_for_status()
        server.alone[rows] = (time.perf_counter() - begun) / len(bodies)


def answer_sizes(evergreen: Server, model: Model) -> dict[int, int]:
    """Return the bytes of Evergreen's answers by number of rows."""
    import httpx

    sizes = {}
    for rows in BODIES:
        url = evergreen.url + evergreen.side.path(model, rows)
        first = evergreen.bodies[rows].read_bytes().splitlines()[0]
        sizes[rows] = len(httpx.post(url, content=first, headers=JSON).content)
    return sizes


def install(sides: list[Side]) -> list[Side]:
    """Return the sides that can run here; say why the others cannot."""
    ready = []
    for side in sides:
        try:
            side.prepare()
            ready.append(side)
        except InstallError as error:
            print(f"{side.name} is left out: {error}")
    return ready


def run(families: list[str], sides: list[Side], lines: list[Line], rounds: int) -> Results:
    """Build the models, then compare the servers of one after the other."""
    results: Results = {}
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as name:
        folder = Path(name)
        with start_mlflow(folder / "mlflow") as url:
            print("fitting and registering the models", flush=True)
            script = str(ROOT / "benchmarks" / "serving_peers" / "models.py")
            command = [sys.executable, script, name, url, ",".join(families)]
            subprocess.run(command, env=environment({}), check=True)
            built = json.loads((folder / "models.json").read_text())
            (folder / "scratch").mkdir()
            for family in families:
                model = Model(family, folder / family, url, folder / "scratch", {})
                of_it = [line for line in lines if line.family == family]
                kept = [s for s in sides if HEADLINE in of_it or not isinstance(s, Canary)]
                print(f"  {family}: {built[family]['engine']}", flush=True)
                results |= compare(model, built[family]["expected"], kept, of_it, rounds)
    return results


def main() -> None:
    """Measure, print, and write where asked to."""
    known = [*FAMILIES, *(side.name for side in SIDES)]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="hgb, 8 connections, two rounds")
    parser.add_argument(
        "--only", default="", help=f"models and servers, separated by commas: {', '.join(known)}"
    )
    parser.add_argument(
        "--write", action="store_true", help="renew docs/benchmarks.md and the plot"
    )
    options = parser.parse_args()
    wanted = [name.strip() for name in options.only.split(",") if name.strip()]
    if unknown := sorted(set(wanted) - set(known)):
        parser.error(f"--only: must name {', '.join(known)}, got {', '.join(unknown)}")
    if options.write and (options.quick or wanted):
        parser.error("--write: must be a full run. Leave --quick and --only out.")
    check_tools()
    os.sched_setaffinity(0, {int(LOAD_CORE)})  # and with it the registry, `wrk` and the fits
    families = [f for f in FAMILIES if f in wanted] or (["hgb"] if options.quick else [*FAMILIES])
    chosen = [side for side in SIDES if side.name in wanted] or SIDES
    sides = install([Evergreen(), *(side() for side in chosen if side is not Evergreen)])
    connections = (HEADLINE.connections,) if options.quick else CONNECTIONS
    lines = [Line(f, rows, c) for f in families for rows in BODIES for c in connections]
    begun, before = time.monotonic(), os.getloadavg()[1]
    results = run(families, sides, lines, 2 if options.quick else ROUNDS)
    noted = report.caption(time.monotonic() - begun, before, os.getloadavg()[1])
    text = report.tables(results, sides, noted)
    print(f"\n{text}")
    if options.write:
        page.write(ROOT / "docs", text, results, sides)
    if any(load.errors for loads in results.values() for load in loads):
        sys.exit("errors: must be 0, see above.")


if __name__ == "__main__":
    main()
