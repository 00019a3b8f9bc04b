import pyarrow as pa
import pyarrow.parquet as pq

from include.store.snapshots import Column
from include.validate.scan import Scan


def test_a_path_is_no_pattern(tmp_path):
    for name, rows in (("v[1]", 2), ("v1", 5)):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table({"a": list(range(rows))}), tmp_path / name / "x.parquet")
    columns = [Column("a", "int", 0.0, 0.0, 1.0, 2)]
    with Scan([tmp_path / "v[1]" / "x.parquet"], columns) as scan:
        assert sum(n for _, n in scan.class_counts("a")) == 2


def test_a_folder_is_no_column(tmp_path):
    (tmp_path / "a=7").mkdir()
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "a=7" / "x.parquet")
    with Scan([tmp_path / "a=7" / "x.parquet"], [Column("a", "int", 0.0, 1.0, 2.0, 2)]) as scan:
        assert sorted(scan.class_counts("a")) == [(1, 1), (2, 1)]
