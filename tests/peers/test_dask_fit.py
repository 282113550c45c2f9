"""`fit` by tasks: the codebooks of the same rows in memory, bit for bit, however they are cut."""

import contextlib
import pickle
import subprocess
import sys
from importlib import import_module

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rvq_np
from rvq_np import train
from rvq_np.codebooks import Linear
from rvq_np.errors import (
    BackendError,
    DtypeError,
    FewVectorsWarning,
    InputFileError,
    NonFiniteError,
    ShapeError,
    StateError,
    TooFewVectorsWarning,
)
from rvq_np.train import chunked, data, refining, tallies, tasks
from rvq_np.train.kmeans import lloyd, sample_rows

N, DIM, SIZE = 3000, 6, 16


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Several blocks of rows, the last one not full."""
    for module in (data, chunked):
        monkeypatch.setattr(module, "ROWS", 700)


@pytest.fixture(params=["sync", "threads"])
def scheduler(request):
    with dask.config.set(scheduler=request.param):
        yield request.param


def vectors(dtype="float32", n=N):
    """Return numbers of so many sizes that float64 sums of them depend on the order."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((n, DIM))
    return (x if dtype == "float16" else x * np.exp(6 * rng.standard_normal(x.shape))).astype(dtype)


def test_sums_of_these_vectors_depend_on_the_order():
    """Or nothing would be said by codebooks that are the same."""
    x = vectors().astype(np.float64)
    assert (np.add.accumulate(x)[-1] != np.add.accumulate(x[::-1])[-1]).any()


def fitted(x, n_q=3, rng=1, **options):
    states = train.fit(x, n_q, SIZE, options.pop("iterations", 6), rng, **options)
    return [state.fingerprint for state in states]


MAPS = [
    (Linear(np.random.default_rng(q).standard_normal((4, DIM)).astype(np.float32), np.ones(4)),
     Linear(np.random.default_rng(9 + q).standard_normal((DIM, 4)).astype(np.float32), np.ones(6)))
    if q != 1 else None
    for q in range(3)
]  # fmt: skip


def test_a_fit_leaves_the_configuration_of_dask_as_it_is():
    """Where `distributed` was imported during a fit only, its defaults were gone afterwards."""
    code = """
import dask, dask.array as da
from rvq_np import train
x = da.random.default_rng(0).standard_normal((40, 3), chunks=(20, 3))
train.fit(x, 1, 4, 1, 0)
import distributed
print(dask.config.get("distributed.comm.timeouts.connect"), dask.compute(x.sum())[0] != 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=2000, check=False
    )
    assert done.stdout.split() == ["30s", "True"], done.stderr[-2000:]


@pytest.mark.parametrize("persist", [True, False])
def test_tallies_are_those_of_memory_to_the_last_bit(persist, scheduler):
    """In float64: codewords are rounded to float32, which hides most orders of a sum."""
    x = vectors()
    array = da.from_array(x, chunks=((1, 450, 2000, N - 2451), DIM))
    here = data.Data(x, None, [None])
    there = chunked.ChunkedData(chunked.Chunks("fit", array), None, [None], persist)
    found = []
    for each in (here, there):
        each.begin()
        found.append((each.energy(), lloyd(each.passes(), x[:3], 1)))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1].counts, found[1][1].counts)
    np.testing.assert_array_equal(found[0][1].sums, found[1][1].sums)


@pytest.mark.parametrize("persist", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"rows_per_codeword": 60}, {"rows_per_codeword": None}, {"projections": MAPS}],
    ids=["default", "sampled", "all", "projections"],
)
def test_any_chunks_give_the_codebooks_of_memory(options, persist, scheduler):
    x = vectors()
    expected = fitted(x, **options)
    for size in (N, 333, 1):
        if size > 1 or (scheduler == "sync" and "rows_per_codeword" in options):
            array = da.from_array(x, chunks=(size, DIM)) if size > 1 else da.from_array(
                x, chunks=((1, 0, 2, N - 3), DIM))  # fmt: skip
            assert fitted(array, persist=persist, **options) == expected


@settings(max_examples=10)
@given(st.sets(st.integers(1, N - 1), max_size=6), st.booleans(), st.integers(1, 99))
def test_any_cuts_give_the_codebooks_of_memory(ends, persist, seed):
    sizes = tuple(np.diff([0, *sorted(ends), N]).tolist())
    x = vectors()
    with dask.config.set(scheduler="sync"):
        array = da.from_array(x, chunks=(sizes, DIM))
        options = {"rng": seed, "n_q": 2, "iterations": 2, "rows_per_codeword": 100}
        assert fitted(array, persist=persist, **options) == fitted(x, **options)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_so_do_other_float_types(dtype, scheduler):
    x = vectors(dtype)
    assert fitted(da.from_array(x, chunks=(500, DIM))) == fitted(x)


def test_so_do_dead_codewords_and_chunks_of_unknown_size(scheduler):
    """Few distinct rows: most codewords are drawn again and again."""
    x = np.repeat(vectors(n=10), 300, axis=0)
    array = da.from_array(x, chunks=(800, DIM))
    array = array[array[:, 0] > -np.inf]
    with pytest.warns(FewVectorsWarning, match="holds 10 distinct vectors for 16 codewords"):
        expected = fitted(x)
    for persist in (True, False):
        with pytest.warns(FewVectorsWarning, match="holds 10 distinct vectors for 16 codewords"):
            assert fitted(array, persist=persist) == expected


def test_distinct_vectors_are_looked_for_in_all_blocks(scheduler):
    x = np.repeat(vectors(n=1), N, axis=0)
    x[-20:] = vectors(n=20)
    assert fitted(da.from_array(x, chunks=(800, DIM))) == fitted(x)


@pytest.mark.parametrize("persist", [True, False])
def test_so_do_sizes_of_stages_warm_starts_and_frozen_stages(persist, scheduler):
    x = vectors()
    array = da.from_array(x, chunks=(800, DIM))
    start = np.stack([state.codebook for state in train.fit(x[:900], 2, SIZE, 3, 1)])
    for size, options in (([8, 5], {}), (SIZE, {"start": start}),
                          (SIZE, {"start": start, "freeze": [0], "hold": 0.5})):  # fmt: skip
        here = train.fit(x, 2, size, 4, 1, **options)
        there = train.fit(array, 2, size, 4, 1, persist=persist, **options)
        assert here == there
        assert [state.placed.tolist() for state in here] == [
            state.placed.tolist() for state in there
        ]


@pytest.mark.parametrize("persist", [True, False])
@pytest.mark.parametrize(("spherical", "normalize"), [(True, False), (False, True), (True, True)])
def test_so_do_spherical_stages_and_normalized_residuals(spherical, normalize, persist, scheduler):
    x, plain = vectors(), fitted(vectors())
    options = {"spherical": spherical, "normalize_residuals": normalize, "rows_per_codeword": 150}
    array = da.from_array(x, chunks=((1, 450, 2000, N - 2451), DIM))
    here, there = (
        train.fit(each, 3, [16, 8, 12], 6, 1, persist=how, **options)
        for each, how in ((x, None), (array, persist))
    )
    assert here == there
    assert {state.metric for state in there} == {"cosine" if spherical else "euclidean"}
    assert {state.normalized for state in there} == {normalize}
    assert there[0].fingerprint not in plain


def test_a_task_that_runs_again_draws_the_same():
    """As after the death of a worker: threads share the generator with the process that called."""
    rng = np.random.default_rng(3)
    once, again = (tasks._called(sample_rows, (1000, 5, rng)) for _ in range(2))
    assert once[0].tolist() == again[0].tolist()
    assert once[1] == again[1] != rng.bit_generator.state


def clustered(n=N):
    """Vectors that three stages describe well: refinement makes their codebooks better."""
    rng = np.random.default_rng(2)
    parts = [rng.standard_normal((SIZE, DIM)) * scale for scale in (2.0, 1.0, 0.6)]
    x = sum(part[rng.integers(0, SIZE, n)] for part in parts)
    return (x + 0.2 * rng.standard_normal((n, DIM))).astype(np.float32)


@pytest.mark.parametrize("persist", [True, False])
@pytest.mark.parametrize("rows", [None, 50], ids=["all", "sampled"])
def test_refined_codebooks_are_those_of_memory(rows, persist, scheduler):
    x, options = clustered(), {"iterations": 12, "rows_per_codeword": rows}
    array = da.from_array(x, chunks=((1, 450, 2000, N - 2451), DIM))
    here, there = (
        train.fit(each, 3, SIZE, 4, 1, refine=options, persist=how)
        for each, how in ((x, None), (array, persist))
    )
    assert here == there
    assert here != train.fit(x, 3, SIZE, 4, 1)
    books, reports = train.codebooks_of(train.fit(x, 3, SIZE, 4, 1)), []
    better, same = (
        train.refine(each, books, **options, rng=3, callback=reports.append) for each in (x, array)
    )
    assert books != better == same
    half = len(reports) // 2
    assert reports[:half] == reports[half:]


def test_a_bad_number_is_named_by_the_call_that_refines(scheduler):
    x = clustered()
    books = train.codebooks_of(train.fit(x, 3, SIZE, 2, 1))
    x[2000, 3] = np.inf
    with pytest.raises(NonFiniteError, match=r"refine: x holds inf at \(2000, 3\)"):
        train.refine(da.from_array(x, chunks=(800, DIM)), books)


@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("rows", [None, 150], ids=["all", "sampled"])
def test_what_is_refined_by_default_is_what_is_in_memory(monkeypatch, rows, taken):
    """And so is what is made again where it is not taken."""
    monkeypatch.setattr(refining, "LEAST", 1000)
    if not taken:
        monkeypatch.setattr(import_module("rvq_np.train.refine"), "SURE", np.inf)
    x, options = clustered(), {"rows_per_codeword": rows}
    array = da.from_array(x, chunks=(900, DIM))
    found = fitted(x, **options)
    assert fitted(array, **options) == found
    assert (found != fitted(x, refine=False, **options)) == taken


def test_too_few_vectors_to_refine_are_said_here():
    array = da.from_array(vectors()[:40], chunks=(16, DIM))
    with pytest.warns(TooFewVectorsWarning, match="there are 36 vectors to refit 48 codewords"):
        fitted(array, refine=True)


def test_the_class_fits_both_layouts(scheduler):
    x = np.random.default_rng(5).standard_normal((20, DIM, 60)).astype(np.float32)
    rows = np.ascontiguousarray(x.transpose(0, 2, 1)).reshape(-1, DIM)
    made = [
        rvq_np.ResidualVectorQuantizer(DIM, DIM, 2, 8, rng=0).fit(each).codebooks.fingerprint
        for each in (x, da.from_array(x, chunks=(3, 6, 25)), da.from_array(rows, chunks=(99, 6)))
    ]
    assert len(set(made)) == 1


def test_a_fit_goes_on_from_its_checkpoint_on_dask_or_not(tmp_path, scheduler):
    x, path = vectors(), tmp_path / "fit.safetensors"
    array = da.from_array(x, chunks=(500, DIM))
    expected, seen = fitted(x), []

    def stop(info):
        seen.append((info.stage, info.iteration))
        if info.stage == 2:
            raise KeyboardInterrupt

    for first, second, persist in ((array, x, None), (x, array, True), (array, array, False)):
        with pytest.raises(KeyboardInterrupt):
            fitted(first, checkpoint=path, callback=stop)
        assert fitted(second, checkpoint=path, persist=persist) == expected
        assert not path.exists()
    assert seen[:2] == [(0, 1), (0, 2)]
    with pytest.raises(KeyboardInterrupt):
        fitted(array, checkpoint=path, callback=stop)
    with pytest.raises(StateError, match="resume file of another fit"):
        fitted(da.from_array(x[::-1], chunks=(500, DIM)), checkpoint=path)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("persist", [True, False])
def test_the_first_bad_number_is_named_by_its_place(bad, persist, scheduler):
    """Whether or not its row is drawn."""
    x = vectors()
    x[2900, 1] = x[1717, 4] = x[1717, 5] = bad
    array = da.from_array(x, chunks=(500, DIM))
    for each in (x, array):
        with pytest.raises(NonFiniteError, match=r"^fit: x holds .* at \(1717, 4\); expected fin"):
            fitted(each, rows_per_codeword=1, persist=persist)


def test_numbers_beyond_float32_are_refused(scheduler):
    x = vectors("float64")
    x[7] = 1e300
    for each in (x, da.from_array(x, chunks=(4, DIM))):
        with pytest.raises(NonFiniteError, match=r"holds 1e\+300 at \(7, 0\), beyond float32"):
            fitted(each)


def test_what_cannot_be_fitted_is_refused():
    x = da.from_array(vectors(), chunks=(500, 3))
    with pytest.raises(ShapeError, match=r"chunks \(3, 3\) along axis 1.*rechunk"):
        fitted(x)
    with pytest.raises(ShapeError, match=r"shape \(3000,\)"):
        fitted(x[:, 0])
    with pytest.raises(DtypeError, match="int64"):
        fitted(x.rechunk((500, 6)).astype(np.int64))
    with pytest.raises(BackendError, match="expected a dask"):
        fitted(dask.delayed(3))


def test_chunks_of_several_libraries_are_refused(scheduler):
    import array_api_strict

    def some(block, block_info):
        strict = block_info[0]["chunk-location"][0] == 1
        return array_api_strict.asarray(block) if strict else block

    x = da.from_array(vectors(), chunks=(500, DIM))
    mixed = x.map_blocks(some, dtype=x.dtype, meta=x._meta)
    with pytest.raises(BackendError, match=r"^fit: .* array_api_strict.*, numpy\.ndarray;"):
        fitted(mixed)


@pytest.mark.parametrize("persist", [True, False])
def test_blocks_that_share_a_worker_give_one_tally(persist, monkeypatch, scheduler):
    """As on a cluster of three threads and on one of eight, whose tallies tasks add up."""
    x = vectors()
    array, expected, groups = da.from_array(x, chunks=(500, DIM)), fitted(x), []
    monkeypatch.setattr(chunked, "at_home", lambda home: contextlib.nullcontext())
    monkeypatch.setattr(tallies, "at_home", lambda home: contextlib.nullcontext())
    monkeypatch.setattr(tallies, "FOLDED", 2)
    real = tallies.tallies
    monkeypatch.setattr(chunked, "tallies", lambda g, *o: groups.append(len(g)) or real(g, *o))
    for slots, here in ((3, 4), (8, 1)):
        monkeypatch.setattr(tallies, "HERE", here)
        monkeypatch.setattr(chunked, "homes", lambda slots=slots: list(range(slots)))
        assert fitted(array, persist=persist, rows_per_codeword=None) == expected
        assert set(groups) == {min(slots, 5) if persist else 5}
        groups.clear()


def test_the_driver_gets_no_chunk(monkeypatch):
    """What comes back from the tasks: codewords, tallies and numbers, none of them per row."""
    x, largest = vectors(n=20_000), []
    real = chunked.computed

    def computed(call, tasks):
        found = real(call, tasks)
        largest.extend(len(pickle.dumps(each)) for each in found)
        return found

    for module in (chunked, tallies):
        monkeypatch.setattr(module, "computed", computed)
    with dask.config.set(scheduler="sync"):
        fitted(da.from_array(x, chunks=(1000, DIM)), rows_per_codeword=None)
    # The tallies of three trials, in five parts or less, as these numbers have all sizes.
    assert SIZE * DIM * 8 < max(largest) < 3 * 5 * SIZE * DIM * 8 + 2000 < x[:1000].nbytes


def test_files_and_batches_give_the_codebooks_of_memory(tmp_path, scheduler):
    import pyarrow as pa
    import pyarrow.parquet as pq
    import zarr

    x = vectors()
    expected = fitted(x)
    half = tmp_path / "a.npy", tmp_path / "b.npy"
    np.save(half[0], x[:1300])
    np.save(half[1], x[1300:])
    assert fitted(list(half)) == expected
    np.save(tmp_path / "all.npy", x)
    assert fitted(tmp_path / "all.npy") == expected
    assert fitted(iter(np.array_split(x, 7))) == expected
    lists = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), DIM)
    table = pa.table({"id": np.arange(N), "embedding": lists})
    (tmp_path / "parts").mkdir()
    pq.write_table(table[:2000], tmp_path / "parts" / "0.parquet", row_group_size=700)
    pq.write_table(table[2000:], tmp_path / "parts" / "1.parquet")
    assert fitted(tmp_path / "parts") == expected
    ragged = table.set_column(1, "embedding", pa.array(x.tolist(), pa.list_(pa.float32())))
    pq.write_table(ragged, tmp_path / "lists.parquet", row_group_size=700)
    assert fitted(str(tmp_path / "lists.parquet")) == expected
    columns = pa.table({f"x{d}": x[:, d] for d in range(DIM)})
    pq.write_table(columns, tmp_path / "columns.parquet")
    assert fitted(tmp_path / "columns.parquet") == expected
    stored = zarr.create_array(str(tmp_path / "x.zarr"), data=x, chunks=(800, DIM))
    assert fitted(stored) == expected
    assert fitted(tmp_path / "x.zarr") == expected


def test_a_dask_dataframe_gives_the_codebooks_of_memory():
    frames = pytest.importorskip("dask.dataframe")
    import pandas as pd

    x = vectors()
    frame = frames.from_pandas(pd.DataFrame(x), npartitions=5)
    assert fitted(frame) == fitted(x)


def test_files_that_cannot_be_used_are_named(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pytest.raises(FileNotFoundError, match=r"fit: there is no file .*nothing\.npy"):
        fitted(tmp_path / "nothing.npy")
    with pytest.raises(FileNotFoundError, match=r"there is no file"):
        fitted([tmp_path / "nothing.npy"])
    (tmp_path / "bad.npy").write_bytes(b"no array")
    with pytest.raises(InputFileError, match=r"bad\.npy' is not a readable .npy file"):
        fitted(tmp_path / "bad.npy")
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    with pytest.raises(InputFileError, match="not a readable Parquet"):
        fitted(tmp_path / "bad.parquet")
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(InputFileError, match=r"ends in '\.csv'"):
        fitted(tmp_path / "x.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputFileError, match=r"holds no \.parquet"):
        fitted(tmp_path / "empty")
    np.save(tmp_path / "wide.npy", np.ones((9, 7), np.float32))
    np.save(tmp_path / "narrow.npy", np.ones((9, 6), np.float32))
    with pytest.raises(ShapeError, match="the files differ"):
        fitted([tmp_path / "wide.npy", tmp_path / "narrow.npy"])
    pq.write_table(pa.table({"n": [1, 2]}), tmp_path / "ints.parquet")
    with pytest.raises(InputFileError, match=r"columns \['n'\]; expected one of lists"):
        fitted(tmp_path / "ints.parquet")
    pq.write_table(pa.table({"v": [[1.0, 2.0], [3.0]]}), tmp_path / "ragged.parquet")
    with pytest.raises(InputFileError, match=r"ragged\.parquet': row 1 has 1 numbers, row 0 has 2"):
        fitted(tmp_path / "ragged.parquet")
    pq.write_table(pa.table({"v": [1.0, None]}), tmp_path / "missing.parquet")
    with pytest.raises(InputFileError, match="missing values"):
        fitted(tmp_path / "missing.parquet")
    with pytest.raises(ShapeError, match=r"batch 1 has shape \(2, 5\); expected \(n, 6\)"):
        fitted(iter([np.ones((2, 6)), np.ones((2, 5))]))
    with pytest.raises(DtypeError, match="batch 1 has dtype float32; expected float64"):
        fitted(iter([np.ones((2, 6)), np.ones((2, 6), np.float32)]))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64"])
def test_the_transformer_of_scikit_learn_takes_dask_arrays(dtype, scheduler):
    from rvq_np.sklearn import ResidualQuantizer

    x = (4 * vectors("float16")).astype(dtype)
    array = da.from_array(x, chunks=(700, DIM))
    here = ResidualQuantizer(n_q=2, bins=16, random_state=3).fit(x)
    there = ResidualQuantizer(n_q=2, bins=16, random_state=3).fit(array)
    assert there.codebooks_ == here.codebooks_
    assert (there.n_iter_, there.n_features_in_) == (here.n_iter_, DIM)
    codes = there.transform(array)
    assert isinstance(codes, da.Array)
    assert codes.shape == (N, 2)
    np.testing.assert_array_equal(codes.compute(), here.transform(x))
    decoded = there.inverse_transform(codes)
    np.testing.assert_array_equal(decoded.compute(), here.inverse_transform(codes.compute()))
    assert there.score(array) == pytest.approx(here.score(x), rel=1e-9)
    with pytest.raises(ValueError, match="X has 5 features"):
        there.transform(array[:, :5])


def test_partial_fit_takes_chunk_after_chunk(scheduler):
    from rvq_np.sklearn import ResidualQuantizer

    x = vectors("float16").astype(np.float32)
    array = da.from_array(x, chunks=(700, DIM))
    unknown = array[da.from_array(np.ones(N, bool), chunks=700)]
    for later in (array, unknown, array.to_dask_dataframe()):
        here = ResidualQuantizer(n_q=2, bins=16, random_state=3)
        there = ResidualQuantizer(n_q=2, bins=16, random_state=3).partial_fit(later)
        for start in range(0, N, 700):
            here.partial_fit(x[start : start + 700])
        assert there.codebooks_ == here.codebooks_
        assert there.partial_fit(later).codebooks_ != here.codebooks_


def test_partial_fit_of_a_bad_chunk_changes_nothing(scheduler):
    from rvq_np.sklearn import ResidualQuantizer

    x = vectors("float16").astype(np.float32)
    fresh, fitted = (ResidualQuantizer(n_q=2, bins=16, random_state=3) for _ in range(2))
    before = fitted.fit(x).to_quantizer().state_dict()
    x[2100, 4] = np.nan
    array = da.from_array(x, chunks=(700, DIM))
    for each in (fresh, fitted):
        with pytest.raises(NonFiniteError, match=r"nan at \(2100, 4\)"):
            each.partial_fit(array)
    after = fitted.to_quantizer().state_dict()
    assert all((after[name] == before[name]).all() for name in before)
    assert not {"codebooks_", "_quantizer", "n_iter_"} & set(vars(fresh))
