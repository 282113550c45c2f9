"""Parquet files of the commands: vectors, codes and decoded vectors, with what else is in them."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rvq_np
from rvq_np import checkpoints, cli

BOOKS = np.random.default_rng(0).standard_normal((3, 16, 6)).astype(np.float32)
X = np.random.default_rng(1).standard_normal((100, 6)).astype(np.float32)
CODES = rvq_np.encode(X, BOOKS)


def run(line, status=0):
    assert cli.main(line.split()) == status


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.files, "ROWS", 24)  # so that everything comes in pieces
    checkpoints.save("m.safetensors", BOOKS)
    np.save("x.npy", X)
    names = pa.array([f"item {n}" for n in range(100)])
    kind = pa.list_(pa.float32(), 6)
    lists = pa.array(list(X), kind)
    pq.write_table(pa.table({"name": names, "emb": lists, "other": lists}), "x.parquet",
                   row_group_size=33)  # fmt: skip
    pq.write_table(pa.table({f"d{n}": X[:, n] for n in range(6)}), "wide.parquet")


def test_codes_stand_beside_the_other_columns():
    run("encode x.parquet --column emb -m m.safetensors -o c.parquet --n-q 2")
    table = pq.read_table("c.parquet")
    assert table.column_names == ["name", "other", "codes"]
    assert table["name"].to_pylist()[99] == "item 99"
    np.testing.assert_array_equal(np.stack(table["codes"].to_numpy()).T, CODES[:2])
    print_ = rvq_np.Codebooks(BOOKS)[:2].fingerprint
    assert table.schema.metadata[b"rvq_np.codebooks"].decode() == print_
    run("decode c.parquet -m m.safetensors -o y.npy")
    np.testing.assert_array_equal(np.load("y.npy"), rvq_np.decode(CODES[:2], BOOKS))


@pytest.mark.parametrize("ending", ["npy", "csv", "rvq", "parquet"])
def test_every_kind_of_codes_from_every_kind_of_vectors(ending):
    run(f"encode x.npy -m m.safetensors -o c.{ending}")
    run(f"encode wide.parquet -m m.safetensors -o d.{ending}")
    for name in ("c", "d"):
        run(f"decode {name}.{ending} -m m.safetensors -o y.parquet --start 10 --stop 90")
        found = np.stack(pq.read_table("y.parquet")["vectors"].to_numpy())
        np.testing.assert_array_equal(found, rvq_np.decode(CODES[:, 10:90], BOOKS))
        assert found.dtype == np.float32


def test_fit_reads_a_column():
    run("fit x.npy -o a.safetensors --n-q 1 --bins 4")
    run("fit x.parquet --column emb -o b.safetensors --n-q 1 --bins 4")
    run("fit wide.parquet -o c.safetensors --n-q 1 --bins 4")
    whole = [Path(f"{name}.safetensors").read_bytes() for name in "abc"]
    assert whole[0] == whole[1] == whole[2]


def test_decoded_vectors_are_encoded_again():
    run("encode x.npy -m m.safetensors -o c.rvq")
    run("decode c.rvq -m m.safetensors -o y.parquet")
    run("encode y.parquet -m m.safetensors -o again.npy")
    again = rvq_np.encode(rvq_np.decode(CODES, BOOKS), BOOKS)
    np.testing.assert_array_equal(np.load("again.npy"), again)


def test_no_rows_are_no_rows():
    pq.write_table(pq.read_table("x.parquet").slice(0, 0), "none.parquet")
    run("encode none.parquet --column emb -m m.safetensors -o c.parquet")
    assert pq.read_table("c.parquet").num_rows == 0
    run("decode c.parquet -m m.safetensors -o y.parquet")
    assert pq.read_table("y.parquet").num_rows == 0


def test_what_is_no_column_of_vectors_or_codes_is_refused(capsys):
    pq.write_table(pa.table({"codes": pa.array([[1], [1, 2]])}), "ragged.parquet")
    pq.write_table(pa.table({"codes": pa.array([[1.0]])}), "floats.parquet")
    pq.write_table(pa.table({"emb": list(X), "codes": list(X)}), "taken.parquet")
    Path("bad.parquet").write_bytes(b"PAR1" + bytes(50))
    Path("cut.parquet").write_bytes(b"PAR1" + bytes(20) + b"PAR1")
    strided = [rvq_np.Stage(each, stride=2) for each in BOOKS]
    checkpoints.save("s.safetensors", rvq_np.Codebooks(strided))
    before = sorted(os.listdir())
    for line, message in (
        ("encode x.parquet -m m.safetensors -o z.npy", "has columns ['name', 'emb', 'other']"),
        ("encode x.parquet --column none -m m.safetensors -o z.npy", "has columns ['name', "),
        ("encode bad.parquet -m m.safetensors -o z.npy", "is not a readable Parquet file"),
        ("decode cut.parquet -m m.safetensors -o z.npy", "is not a readable Parquet file"),
        ("encode taken.parquet --column emb -m m.safetensors -o z.parquet",
         "has a column 'codes' already. Rename or drop it"),
        ("encode wide.parquet -m s.safetensors -o z.npz", "is a Parquet file and the model has"),
        ("decode x.parquet -m m.safetensors -o z.npy", "expected 'codes' with lists of codes"),
        ("decode ragged.parquet -m m.safetensors -o z.npy", "have lengths 1 to 2; expected one"),
        ("decode floats.parquet -m m.safetensors -o z.npy", "expected lists of whole numbers"),
        ("decode x.parquet --column emb -m m.safetensors -o z.npy", "expected lists of whole numb"),
    ):  # fmt: skip
        run(line, 1)
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert message in err
        assert sorted(os.listdir()) == before
