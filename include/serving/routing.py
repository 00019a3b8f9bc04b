"""Which arm of a rollout answers: a pure function of key, salt and share."""

from __future__ import annotations

from hashlib import blake2b

_WHOLE = 2.0**64


def takes(key: str, salt: str, share: float) -> bool:
    """Tell whether a key belongs to the challenger's share of the traffic.

    The same key, salt and share give the same answer in every process; a key that the challenger has keeps it
    when the share grows. Different salts divide the keys independently of each other.

    Args:
        key: Whom the request is about, or the request's id.
        salt: The rollout's id.
        share: 0 (nobody) to 1 (everybody).
    """
    digest = blake2b(f"{salt}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * _WHOLE
