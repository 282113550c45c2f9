"""Files of IDs and the command: whole or not at all, and what is published never changes."""

import csv
import json

import numpy as np
import pytest

import rvq_np
from rvq_np.cli import main
from rvq_np.errors import InputFileError, LevelsError, ShapeError
from rvq_np.semantic_ids import append, embeddings, files, read, write

KINDS = ["ids.csv", "ids.json"]
CODES = np.array([[0, 1, 2], [3, 0, 1]])
TEXT = ["B00", 'x,"y"\n', "ü"]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("items", [TEXT, [7, -3, 2**40]])
def test_ids_are_read_as_they_were_written(tmp_path, name, items):
    path = tmp_path / name
    write(path, items, CODES, [3, 4], about={"fingerprint": "f"})
    found = read(path)
    assert found.items.tolist() == items
    assert (found.codes == CODES).all()
    assert found.manifest["fingerprint"] == "f"
    before = path.read_bytes()
    more = ["new"] if items is TEXT else [1]
    part = append(path, more, [[1], [2]])
    again = append(path, [each * 2 for each in more], [[0], [0]])
    assert path.read_bytes() == before
    assert [part, again] == [str(tmp_path / name.replace(".", f".part-000{n}.")) for n in (1, 2)]
    found = read(path)
    assert found.items.tolist() == [*items, *more, more[0] * 2]
    assert found.codes[:, 3:].tolist() == [[1, 0], [2, 0]]


def test_the_shapes_that_others_read(tmp_path):
    write(tmp_path / "ids.json", TEXT, CODES, [3, 4])
    content = json.loads((tmp_path / "ids.json").read_text(encoding="utf-8"))
    assert content["B00"] == ["<a_0>", "<b_3>"]
    write(tmp_path / "ids.csv", TEXT, CODES, [3, 4], template="<item_{stage}_{code}>")
    with open(tmp_path / "ids.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["item_id", "code_0", "code_1", "sid"]
    assert rows[2] == ['x,"y"\n', "1", "0", "<item_a_1><item_b_0>"]


def test_a_write_that_fails_leaves_nothing_new(tmp_path, monkeypatch):
    path = tmp_path / "ids.csv"
    write(path, TEXT, CODES, [3, 4])
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    calls = []

    def second(*_):
        calls.append(1)
        if len(calls) == 2:  # the manifest
            raise OSError("no space")

    def full(*_):
        raise OSError("no space")

    with monkeypatch.context() as patched:
        patched.setattr(files, "_write_json", full)
        with pytest.raises(OSError, match="no space"):
            write(tmp_path / "other.csv", TEXT, CODES, [3, 4])
    assert {each.name for each in tmp_path.iterdir()} == set(before)
    real = files._write_json
    monkeypatch.setattr(files, "_write_json", lambda *_: second() or second())
    with pytest.raises(OSError, match="no space"):
        append(path, ["new"], [[1], [2]])
    monkeypatch.setattr(files, "_write_json", real)
    found = read(path)  # as before: what was cut off is no part
    assert found.items.tolist() == TEXT
    append(path, ["new"], [[1], [2]])
    assert read(path).items.tolist() == [*TEXT, "new"]
    for name, content in before.items():
        if not name.endswith(".manifest.json"):
            assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda p: write(p / "i.csv", ["a", "a"], CODES[:, :2], [3, 4]), InputFileError,
     "item 'a' is in rows 0 and 1"),
    (lambda p: write(p / "i.csv", ["a", None], CODES[:, :2], [3, 4]), InputFileError,
     "the id of row 1 is None"),
    (lambda p: write(p / "i.csv", ["a", 1.5], CODES[:, :2], [3, 4]), InputFileError, "of row 1"),
    (lambda p: write(p / "i.csv", ["a"], CODES, [3, 4]), ShapeError,
     "codes are of 3 items, and there are 1 ids"),
    (lambda p: write(p / "i.csv", TEXT, CODES, [3]), LevelsError, "got 1 sizes"),
    (lambda p: write(p / "i.txt", TEXT, CODES, [3, 4]), InputFileError, "has another ending"),
    (lambda p: read(p / "none.csv"), FileNotFoundError, "there is no file"),
    (lambda p: append(p / "there.csv", ["B00"], [[0], [0]]), InputFileError,
     "item 'B00' of row 0 has an ID already"),
    (lambda p: append(p / "there.csv", [5], [[0], [0]]), InputFileError,
     "the new ids are whole numbers, those in the file text"),
])  # fmt: skip
def test_what_cannot_be_written_is_named_and_nothing_is(tmp_path, call, error, text):
    write(tmp_path / "there.csv", TEXT, CODES, [3, 4])
    before = sorted(each.name for each in tmp_path.iterdir())
    with pytest.raises(error, match=text):
        call(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == before


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "ids.csv"
    write(path, TEXT, CODES, [3, 4])
    whole, manifest = path.read_bytes(), tmp_path / "ids.csv.manifest.json"
    about = manifest.read_text()
    path.write_bytes(whole.replace(b"B00", b"B01"))
    with pytest.raises(InputFileError, match="its checksum differs"):
        read(path)
    path.write_bytes(whole)
    for wrong in ("", "[]", "{}", about.replace('"version": 1', '"version": 2'),
                  about.replace("ids.csv", "../ids.csv")):  # fmt: skip
        manifest.write_text(wrong)
        with pytest.raises(InputFileError, match="is no manifest of IDs"):
            read(path)
    manifest.write_text(about.replace("ids.csv", "other.csv"))
    with pytest.raises(InputFileError, match="is missing, which the manifest lists"):
        read(path)
    manifest.unlink()
    with pytest.raises(InputFileError, match="has no manifest"):
        read(path)


def test_lists_of_numbers_are_embeddings():
    assert embeddings([[1, 2], [3, 4]]).dtype == np.float32
    x = np.zeros((2, 3))
    assert embeddings(x) is x
    rows = np.empty(2, object)
    rows[:] = [np.zeros(3), None]
    with pytest.raises(ShapeError, match="row 1 is missing, row 0 has 3"):
        embeddings(rows)
    with pytest.raises(ShapeError, match="row 1 has 1 numbers, row 0 has 2"):
        embeddings([[1.0, 2], [3]])


@pytest.fixture
def items(tmp_path, rng):
    x = rng.standard_normal((400, 8)).astype(np.float32)
    np.save(tmp_path / "items.npy", x[:360])
    np.save(tmp_path / "new.npy", x[360:])
    np.save(tmp_path / "names.npy", np.array([f"i{n}" for n in range(360)]))
    np.save(tmp_path / "more.npy", np.array([f"j{n}" for n in range(40)]))
    return tmp_path


def ids(*arguments):
    return main(["ids", *map(str, arguments)])


@pytest.mark.parametrize("way", [[], ["--suffix"], ["--normalize"], ["--capacity", "2"]])
def test_one_command_makes_unique_ids_and_another_adds_to_them(items, capsys, way):
    path = items / "ids.json"
    assert ids(items / "items.npy", "--id", items / "names.npy", "--sizes", "8,8,16", *way,
               "--iterations", 3, "-o", path) == 0  # fmt: skip
    first = read(path)
    assert first.items[:2].tolist() == ["i0", "i1"]
    assert ids("add", items / "new.npy", "--id", items / "more.npy", "--to", path) == 0
    assert "no earlier ID changed" in capsys.readouterr().out
    both = read(path)
    assert (both.codes[:, :360] == first.codes).all()
    assert len(both.items) == 400
    most = np.unique(both.codes, axis=1, return_counts=True)[1].max()
    assert most == 1 if "--capacity" not in way else most <= 2
    assert len(both.codes) == (4 if way == ["--suffix"] else 3)
    assert both.manifest["statistics"]["items"] == 400
    assert ids("info", path, "--plot", items / "picture.png") == 0
    assert (items / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert "unique IDs           " in capsys.readouterr().out
    books = rvq_np.checkpoints.load(items / "ids.json.codebooks.safetensors")
    assert books.fingerprint == both.manifest["fingerprint"]
    assert books.sizes == (8, 8, 16)


def test_codebooks_may_be_given_and_others_are_refused(items, capsys):
    path, other = items / "ids.csv", items / "other.csv"
    common = ["--iterations", 2, "--sizes", "8,8,16"]
    assert ids(items / "items.npy", *common, "-o", path) == 0
    assert ids(items / "items.npy", *common, "--seed", 1, "-o", other) == 0
    model = items / "ids.csv.codebooks.safetensors"
    assert ids(items / "items.npy", "-m", model, "-o", items / "again.csv") == 0
    assert (read(items / "again.csv").codes == read(path).codes).all()
    assert not (items / "again.csv.codebooks.safetensors").exists()
    capsys.readouterr()
    before = {each.name for each in items.iterdir()}
    wrong = items / "other.csv.codebooks.safetensors"
    assert ids("add", items / "new.npy", "--to", path, "-m", wrong) == 1
    assert "expected the same codebooks" in capsys.readouterr().err
    assert {each.name for each in items.iterdir()} == before


@pytest.mark.parametrize(("arguments", "text"), [
    (["items.npy", "-o", "ids.txt"], "has another ending; expected .parquet"),
    (["items.npy", "-o", "none/ids.csv"], "there is no folder"),
    (["items.npy"], "got no --output"),
    (["items.npy", "-o", "ids.csv", "--sizes", "4,x"], "--sizes is '4,x'"),
    (["items.npy", "-o", "ids.csv", "--sizes", "4,4"], "Sizes 32,16 are enough, or a suffix"),
    (["items.npy", "-o", "ids.csv", "--template", "<{code}>"], "the template is '<{code}>'"),
    (["items.npy", "-o", "ids.csv", "--id", "more.npy"], "has 40 ids for 360 rows"),
    (["twice.npy", "-o", "ids.csv", "--id", "same.npy"], "item 'a' is in rows 0 and 1"),
    (["nan.npy", "-o", "ids.csv", "--sizes", "2"],
     "the embedding of item 1, row 1, holds NaN or infinity"),
    (["none.npy", "-o", "ids.csv"], "there is no file"),
    (["empty.npy", "-o", "ids.csv"], "has no rows"),
    (["add", "new.npy"], "got no --to"),
    (["add", "new.npy", "--to", "none.csv"], "there is no file"),
    (["some", "new.npy"], "expected one file, add and a file, or info and a file"),
    (["info", "none.csv"], "there is no file"),
])  # fmt: skip
def test_what_the_command_cannot_do_is_said_in_a_line(items, capsys, monkeypatch, arguments, text):
    monkeypatch.chdir(items)
    np.save("twice.npy", np.zeros((2, 3)))
    np.save("same.npy", np.array(["a", "a"]))
    np.save("nan.npy", np.array([[0.0], [np.nan]]))
    np.save("empty.npy", np.zeros((0, 3)))
    before = {each.name for each in items.iterdir()}
    assert ids(*arguments) == 1
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert {each.name for each in items.iterdir()} == before
