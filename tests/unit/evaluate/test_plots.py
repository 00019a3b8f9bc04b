"""Every picture can be drawn, stays small, and survives what real data holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from include.evaluate.plots import Drawing, draw
from include.spec.schema import Primary
from tests.unit.scoring.cases import Case, make_case

NAMES = {
    "binary": {"curves", "calibration", "confusion", "difference"},
    "multiclass": {"calibration", "confusion", "difference"},
    "regression": {"predicted", "residuals", "difference"},
}


def drawing_of(case: Case, **more: Any) -> Drawing:
    drawn = np.random.default_rng(0).normal(0.02, 0.01, 500)
    champion = case.predictions[1]
    primary = Primary(metric="roc_auc", margin=0.01)
    classes = [f"class {code}" for code in range(4)]
    drawing = Drawing(case.task, primary, case.y, classes, case.predictions[0], champion, drawn)
    return replace(drawing, **more)


def colours(path: Path) -> set[tuple[int, int, int]]:
    """Return the frequent colours of a picture, rounded."""
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3) // 16
    values, counts = np.unique(pixels, axis=0, return_counts=True)
    return {tuple(v) for v in values[counts > 30].tolist()}


TEAL, ORANGE = (0x0F // 16, 0x76 // 16, 0x6E // 16), (0xD9 // 16, 0x77 // 16, 0x06 // 16)


def test_each_task_gets_its_pictures_with_both_models(case: Case, tmp_path: Path) -> None:
    files = draw(drawing_of(case), tmp_path)
    assert {f.stem for f in files} == NAMES[case.task]
    assert set(tmp_path.iterdir()) == set(files)
    assert all(1000 < f.stat().st_size < 100_000 for f in files)


def test_both_models_are_on_the_curves(tmp_path: Path) -> None:
    case = make_case("binary")
    both = next(f for f in draw(drawing_of(case), tmp_path) if f.stem == "curves")
    assert {TEAL, ORANGE} <= colours(both)
    alone = draw(drawing_of(case, champion=None), tmp_path)
    assert ORANGE not in colours(next(f for f in alone if f.stem == "curves"))


def test_pictures_of_an_earlier_attempt_go_away(tmp_path: Path) -> None:
    (tmp_path / "old.png").write_bytes(b"x")
    draw(drawing_of(make_case("regression")), tmp_path)
    assert not (tmp_path / "old.png").exists()


def test_the_size_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    for task in ("binary", "regression"):
        files = draw(drawing_of(make_case(task, rows=200_000)), tmp_path)
        assert all(f.stat().st_size < 100_000 for f in files)


@pytest.mark.parametrize(
    "change",
    [
        {"champion": None},
        {"champion": np.full(400, np.nan)},
        {"improvements": None},
        {"improvements": np.full(9, np.nan)},
        {"improvements": np.zeros(9)},
        {"y": np.zeros(400, dtype=int)},
        {"challenger": np.full(400, 0.3)},
        {"classes": ["$<50k$", "a very long name of a class \n"]},
    ],
)
def test_odd_data_is_drawn_all_the_same(change: Any, tmp_path: Path) -> None:
    names = {f.stem for f in draw(drawing_of(make_case("binary"), **change), tmp_path)}
    expected = NAMES["binary"] - ({"curves"} if "y" in change else set())
    improvements = change.get("improvements", np.zeros(1))
    if improvements is None or np.isnan(improvements).any():
        expected = expected - {"difference"}
    assert names == expected


@pytest.mark.parametrize(
    "change", [{"challenger": np.full(400, np.inf)}, {"y": np.empty(0), "challenger": np.empty(0)}]
)
def test_nothing_to_draw_draws_nothing(change: Any, tmp_path: Path) -> None:
    assert draw(drawing_of(make_case("regression"), **change), tmp_path) == ()


def test_many_classes_share_a_cell(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 40, 900), rng.dirichlet(np.ones(40), 900)
    many = Drawing("multiclass", Primary(metric="log_loss"), y, list(range(40)), p, p, None)
    files = draw(many, tmp_path)
    width, height = Image.open(next(f for f in files if f.stem == "confusion")).size
    assert width < 2200
    assert height < 1200
