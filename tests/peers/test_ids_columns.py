"""Parquet files and columns of pyarrow, polars and pandas; tensors of torch."""

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as parquet  # noqa: E402

from rvq_np.cli import main  # noqa: E402
from rvq_np.errors import DtypeError, NonFiniteError, ShapeError  # noqa: E402
from rvq_np.semantic_ids import append, columns, embeddings, read, write  # noqa: E402

X = np.arange(12, dtype=np.float32).reshape(4, 3)


def lists(kind):
    if kind.startswith("arrow"):
        of = {"arrow list": pa.list_(pa.float32()), "arrow large": pa.large_list(pa.float64()),
              "arrow fixed": pa.list_(pa.float32(), 3), "arrow half": pa.list_(pa.float16()),
              "arrow whole": pa.list_(pa.int64())}[kind]  # fmt: skip
        numbers = X.astype(np.float16) if kind == "arrow half" else X
        numbers = X.astype(int).tolist() if kind == "arrow whole" else list(map(list, numbers))
        return pa.chunked_array([pa.array(numbers[:1], of), pa.array(numbers[1:], of)])
    if kind == "polars":
        return pytest.importorskip("polars").Series("x", X.tolist())
    if kind == "polars array":
        polars = pytest.importorskip("polars")
        return polars.Series("x", X.tolist(), dtype=polars.Array(polars.Float32, 3))
    return pytest.importorskip("pandas").Series(list(X))


@pytest.mark.parametrize("kind", [
    "arrow list", "arrow large", "arrow fixed", "arrow half", "arrow whole", "polars",
    "polars array", "pandas",
])  # fmt: skip
def test_columns_of_lists_are_embeddings(kind):
    column = lists(kind)
    found = embeddings(column)
    assert found.dtype.kind == "f"
    assert (found == X).all()
    part = column[1:3] if kind != "pandas" else column.iloc[1:3]
    assert (embeddings(part) == X[1:3]).all()


@pytest.mark.parametrize(("column", "error", "text"), [
    (pa.array([[1.0, 2], None]), ShapeError, "row 1 is missing, row 0 has 2"),
    (pa.array([[1.0, 2], [3]]), ShapeError, "row 1 has 1 numbers, row 0 has 2"),
    (pa.array([[1.0, 2], [3, None]]), NonFiniteError, "row 1 has a missing number"),
    (pa.array([1.0, 2]), DtypeError, "the column holds double; expected lists"),
    (pa.array([["a"]]), DtypeError, "expected lists of numbers"),
])  # fmt: skip
def test_columns_that_are_no_embeddings_are_named(column, error, text):
    with pytest.raises(error, match=text):
        embeddings(column)


@pytest.mark.parametrize("items", [["a", "b", "c"], [3, 1, 2]])
def test_parquet_comes_back_and_others_can_read_it(tmp_path, items):
    path, codes = tmp_path / "ids.parquet", np.array([[0, 1, 2], [3, 0, 1]])
    write(path, items, codes, [3, 4])
    append(path, [items[0] * 9], [[1], [1]])
    found = read(path)
    assert found.items.tolist() == [*items, items[0] * 9]
    assert found.codes.tolist() == [[0, 1, 2, 1], [3, 0, 1, 1]]
    table = parquet.read_table(path)
    assert table.column_names == ["item_id", "codes", "sid"]
    assert table["codes"].to_pylist() == [[0, 3], [1, 0], [2, 1]]
    assert table["sid"].to_pylist()[0] == "<a_0><b_3>"


def test_tensors_come_back(tmp_path):
    torch = pytest.importorskip("torch")
    path, codes = tmp_path / "ids.pt", np.array([[0, 1, 2], [3, 0, 1]])
    write(path, range(3), codes, [3, 4])
    append(path, [3], [[2], [2]])
    assert torch.load(path, weights_only=True).tolist() == codes.T.tolist()
    found = read(path)
    assert found.items.tolist() == [0, 1, 2, 3]
    assert found.codes.tolist() == [[0, 1, 2, 2], [3, 0, 1, 2]]
    with pytest.raises(ValueError, match="a tensor has no ids; expected the items 0 to 1"):
        write(tmp_path / "other.pt", [1, 0], codes[:, :2], [3, 4])


def test_the_command_reads_parquet_in_blocks(tmp_path, rng, monkeypatch, capsys):
    monkeypatch.setattr(columns, "ROWS", 100)
    x = rng.standard_normal((330, 4)).astype(np.float32)
    for name, some in (("items", slice(0, 300)), ("new", slice(300, 330))):
        table = pa.table({"name": [f"{n}" for n in range(330)][some], "v": list(x[some])})
        parquet.write_table(table, tmp_path / f"{name}.parquet")
    ids = str(tmp_path / "ids.parquet")
    of = ["--id", "name", "--column", "v"]
    assert main(["ids", str(tmp_path / "items.parquet"), *of, "--sizes", "8,8,8", "-o", ids]) == 0
    assert main(["ids", "add", str(tmp_path / "new.parquet"), *of, "--to", ids]) == 0
    found = read(ids)
    assert found.items.tolist() == [f"{n}" for n in range(330)]
    assert np.unique(found.codes, axis=1).shape[1] == 330
    capsys.readouterr()
    for column in ("nothing", "name"):
        assert main(["ids", str(tmp_path / "items.parquet"), "--column", column, "-o", ids]) == 1
    error = capsys.readouterr().err
    assert "has no column 'nothing'; expected one of 'name', 'v'" in error
    assert "the column holds string; expected lists of numbers" in error


def test_a_missing_id_or_embedding_is_named_with_its_row(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(columns, "ROWS", 2)
    rows = [[1.0], [2.0], [3.0], [4.0]]
    for ids, vectors, text in (
        (["a", "b", "c", None], rows, "the id of row 3 is missing"),
        (["a", "b", "c", "d"], [*rows[:3], None], "row 3 is missing"),
        (["a", "b", "c", "d"], [*rows[:2], [1.0, 2], [1.0, 2]], "row 2 has 2 numbers"),
        (["a", "b", "c", "d"], [*rows[:3], [float("nan")]], "item 'd', row 3, holds NaN"),
        (["a", "b", "a", "d"], rows, "item 'a' is in rows 0 and 2"),
    ):
        path = tmp_path / "items.parquet"
        parquet.write_table(pa.table({"id": ids, "embedding": vectors}), path)
        arguments = ["ids", str(path), "--id", "id", "--sizes", "4", "-o", str(tmp_path / "o.csv")]
        assert main(arguments) == 1
        assert text in capsys.readouterr().err
        assert [each.name for each in tmp_path.iterdir()] == ["items.parquet"]
