"""`python -m include.serving`: uvicorn on the settings of the environment, in one process or in several."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys

from include.errors import EvergreenError, ServiceError
from include.serving.workers import DRAIN_SECONDS, REFUSED, Inherited, Workers, metrics_folder
from include.settings import Settings, get_settings

_READY_SECONDS = 60.0


def listen(settings: Settings) -> socket.socket:
    """Return a socket bound to the serving port.

    Raises:
        ServiceError: The port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.serving_port))
    except OSError as error:
        listener.close()
        raise ServiceError(
            "serving",
            f"must be able to listen on {settings.host}:{settings.serving_port}, got {error.strerror}",
            "Stop what holds the port, or set EVERGREEN_SERVING_PORT to another one.",
        ) from error
    return listener


def serve(settings: Settings, listener: socket.socket, *, replaces: bool = False) -> None:
    """Serve until told to stop; requests under way are finished first.

    Args:
        settings: Where things are.
        listener: A bound socket.
        replaces: Accept only once the models answer: others do meanwhile.
    """
    import uvicorn

    from include.ledger.ledger import Ledger
    from include.registry.gateway import Registry
    from include.serving.access import open_access
    from include.serving.access_log import AccessLog
    from include.serving.app import create_app
    from include.serving.direct import Direct
    from include.serving.follower import Follower
    from include.serving.prediction_log import LogLimits
    from include.serving.replicas import Reporter
    from include.serving.source import RegistrySource
    from include.serving.telemetry import Metrics
    from include.store.files import open_store

    metrics = Metrics()
    source = RegistrySource(Registry(settings.mlflow))
    follower = Follower(
        source,
        settings.home / "serving-cache",
        metrics,
        memory_bytes=settings.serving_memory_mb * 2**20,
        cache_bytes=settings.serving_cache_mb * 2**20,
    )
    reporter = Reporter(Ledger(settings.ledger_dsn), lambda: follower.table)
    follower.on_change = reporter.wake
    follower.loader.on_refused = reporter.refused
    app = create_app(
        follower,
        metrics,
        store=open_store(settings.store_uri),
        log_limits=LogLimits(seconds=settings.log_seconds),
        access=open_access(settings),
        access_log=AccessLog(metrics) if settings.access_log else None,
    )
    # Nothing here asks for a caller's address, so no X-Forwarded-For is believed, nor looked for: 12 us a request.
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        http=Direct,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    server = uvicorn.Server(config)
    # uvicorn raises the signal that ended it once more when it is done; what follows must still run.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    reporter.start()
    if replaces:
        follower.start()
        follower.wait(_READY_SECONDS, lambda: server.should_exit)
    try:
        server.run(sockets=[listener])
    finally:
        reporter.stop()


def main() -> int:
    """Run the serving process, or one of several; return its exit status."""
    # Before numpy and OpenMP are loaded. Their thread pools only fight here: it is requests that run in parallel.
    for pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(pool, "1")
    form = "%(asctime)s %(levelname)s %(name)s %(message)s"
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=form)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # or each poll writes a line
    inherited = Inherited.parse(sys.argv[1:])
    try:
        settings = get_settings()
        if inherited is not None:
            inherited.end_with_parent()
            with socket.socket(fileno=inherited.listener) as listener:
                serve(settings, listener, replaces=inherited.replaces)
        elif settings.serving_workers == 1:
            serve(settings, listen(settings))
        else:
            listener = listen(settings)
            folder = metrics_folder(settings.home, settings.serving_port)
            return Workers(listener, settings.serving_workers, folder).run()
    except EvergreenError as error:
        sys.stderr.write(f"{error}\n")
        return 1 if inherited is None else REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
