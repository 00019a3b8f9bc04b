import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.scoring.rows import Rows


@pytest.mark.parametrize("folder", ["x=7", "date=2026-03-01", "it's [here]"])
def test_what_a_folder_is_called_changes_no_column(tmp_path, folder):
    (tmp_path / folder).mkdir()
    path = tmp_path / folder / "window.parquet"
    pq.write_table(pa.table({"x": [1.0, 2.0], "date": ["a", "b"]}), path)
    with Rows([path]) as rows:
        found = rows.all(f"SELECT {rows.at['x']}, {rows.at['date']} FROM {rows.source}")
    assert sorted(found) == [(1.0, "a"), (2.0, "b")]


def test_only_answers(tmp_path):
    path = tmp_path / "window.parquet"
    pq.write_table(pa.table({"x": [1.0, None], "_error": [None, "422"]}), path)
    with Rows([path]) as rows, Rows([path], answered=True) as answers:
        assert (rows.count(), answers.count()) == (2, 1)
        assert answers.per_column(["x"], {"x": [f"count(*) FILTER ({answers.missing('x')})"]}) == {
            "x": (0,)
        }
    pq.write_table(pa.table({"x": [1.0, None]}), path)
    with Rows([path], answered=True) as rows:
        assert rows.count() == 2
