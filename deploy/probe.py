"""Health check of a container: asks a real API and looks at the answer.

Usage: probe.py URL [TEXT]; exit 0 when URL answers 2xx and, with TEXT, the body does not hold it.
"""

import sys
import urllib.request

with urllib.request.urlopen(sys.argv[1], timeout=5) as answer:  # noqa: S310  # our own services
    body = answer.read().decode()
sys.exit(any(text in body for text in sys.argv[2:]))
