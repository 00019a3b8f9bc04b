"""The end of a pool of threads, within a time: a thread that hangs must not keep the process from saving its log."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor


def end(pool: ThreadPoolExecutor, seconds: float) -> bool:
    """Drop what waits in a pool, and wait for what is under way; return whether it ended in time.

    Args:
        pool: It takes nothing more.
        seconds: Longest wait.
    """
    pool.shutdown(wait=False, cancel_futures=True)
    waiting = threading.Thread(target=pool.shutdown, name="ending", daemon=True)
    waiting.start()
    waiting.join(seconds)
    return not waiting.is_alive()
