"""What live replicas say of themselves, and whether that is enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from include.deploy.replicas import all_have, has_champion, has_loaded, routes_by
from include.deploy.waiting import NotYet
from include.errors import ModelError


@dataclass(frozen=True)
class Report:
    id: str
    state: Mapping[str, Any]


def replica(name: str, **mine: Any) -> Report:
    known = {"champion": "1", "loaded": ["1"], "failures": {}, "rollout": None}
    return Report(name, {"models": {"churn": known | mine}})


def test_all_have_it() -> None:
    live = [replica(n, loaded=["1", "2"], champion="2") for n in "abc"]
    assert all_have(live, "churn", "2", has_loaded("2")) == 3
    assert all_have(live, "churn", "2", has_champion("2")) == 3


def test_those_that_lag_are_named() -> None:
    live = [replica("a", loaded=["1", "2"]), replica("b"), Report("c", {}), replica("d", loaded=[])]
    said = "3 of 4 lag: b has loaded 1; c has loaded nothing; d has loaded nothing"
    with pytest.raises(NotYet, match=said):
        all_have(live, "churn", "2", has_loaded("2"))
    with pytest.raises(NotYet, match=r"^1 of 1 lag: c has champion None$"):
        all_have([Report("c", {})], "churn", "2", has_champion("2"))


def test_many_that_lag_are_counted() -> None:
    live = [replica(str(n)) for n in range(9)]
    with pytest.raises(NotYet, match=r"9 of 9 lag: 0 .*; 4 has loaded 1 and 4 more$"):
        all_have(live, "churn", "2", has_loaded("2"))


def test_nobody_lives() -> None:
    with pytest.raises(NotYet, match="no serving process has reported itself lately"):
        all_have([], "churn", "2", has_loaded("2"))


def test_one_that_refuses_ends_the_wait_and_one_that_failed_does_not() -> None:
    passing = {"2": {"error": "MLflow is away", "permanent": False}}
    with pytest.raises(NotYet, match=r"b has loaded 1 \(MLflow is away\)"):
        all_have([replica("b", failures=passing)], "churn", "2", has_loaded("2"))
    lasting = {"2": {"error": "wrong digest", "permanent": True}}
    live = [replica("a", loaded=["1", "2"]), replica("b", failures=lasting)]
    with pytest.raises(ModelError, match="by every replica, b got: wrong digest"):
        all_have(live, "churn", "2", has_loaded("2"))
    assert all_have(live, "churn", "1", has_loaded("1")) == 2, "another version's failure is none"


def test_routing_is_by_this_rollout_and_share() -> None:
    check = routes_by("r1", 0.1)
    good = {"id": "r1", "version": "2", "share": 0.1}
    assert all_have([replica("a", rollout=good)], "churn", "2", check) == 1
    for other, said in [
        (None, "a routes by no rollout"),
        (good | {"share": 0.5}, "a routes by r1 at 0.5"),
        (good | {"id": "r0"}, "a routes by r0 at 0.1"),
    ]:
        with pytest.raises(NotYet, match=said):
            all_have([replica("a", rollout=other)], "churn", "2", check)
