"""Health check of a container: asks a real API. Usage: probe.py URL; exit 0 when it answers 2xx."""

import sys
import urllib.request

with urllib.request.urlopen(sys.argv[1], timeout=5) as answer:  # noqa: S310  # our own services
    answer.read()
