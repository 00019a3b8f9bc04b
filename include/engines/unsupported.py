"""Why a version keeps the scikit-learn engine."""

from __future__ import annotations


class Unsupported(Exception):  # noqa: N818 - no error but an answer; it never leaves this room
    """Something in a pipeline has no counterpart in ONNX.

    Args:
        what: What it is, as it completes "cannot convert ...".
    """
