"""The one way a request is turned down: a status, and a sentence in the error form of the protocol.

Owns the mapping from "what is wrong" to an HTTP status, and the suggestion for a misspelt name.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Collection, Iterable

from include.errors import EvergreenError

_SHOWN = 10
_TYPOS, _COMPARED, _LONGEST = 4, 50, 100
_REPR = reprlib.Repr()
_REPR.maxstring, _REPR.maxother, _REPR.maxlist, _REPR.maxdict, _REPR.maxlevel = 80, 80, 4, 3, 3


class RequestError(EvergreenError):
    """A request that gets no prediction.

    Args:
        status: HTTP status, 4xx where the caller must change something, 503 where waiting helps.
        where: The input, field or model concerned.
        rule: What must hold and what was found instead, without a final full stop.
        fix: What the caller can do, as a sentence.
    """

    def __init__(self, status: int, where: str, rule: str, fix: str) -> None:
        super().__init__(where, rule, fix)
        self.args = (status, where, rule, fix)  # so that a copy or a pickle is complete
        self.status = status


def bad(where: str, rule: str, fix: str) -> RequestError:
    """Return a 400: the request itself is wrong."""
    return RequestError(400, where, rule, fix)


def suggest(name: str, known: Collection[str]) -> str:
    """Return `name` quoted, followed by the known name it resembles, if any.

    Comparing costs 0.1 ms a pair, on the event loop: only the likeliest are compared, however many there are.
    """
    likely = [known_name for known_name in known if abs(len(known_name) - len(name)) <= _TYPOS]
    likely.sort(key=lambda known_name: known_name[:1] != name[:1])
    near = difflib.get_close_matches(name[:_LONGEST], likely[:_COMPARED], n=1)
    return f"{quote(name)} (did you mean {quote(near[0])}?)" if near else quote(name)


def listed(names: Iterable[str]) -> str:
    """Return names quoted and separated by commas; at most ten, then how many more there are."""
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(quote(name) for name in names[:_SHOWN]) + more


def quote(value: object) -> str:
    """Return what a caller sent, quoted and cut, fit for an error message.

    `reprlib` looks at the first few items only, so a body of megabytes costs nothing here.
    """
    return _REPR.repr(value)
