"""`all_reduce=` by torch.distributed (gloo) and by mpi4py: each process has a share of the rows."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "helpers" / "ranks.py"
ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def environment():
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {
        **os.environ, "PYTHONPATH": paths, "RVQ_NP_NUM_THREADS": "1", "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",  # not what the name of the machine resolves to
        "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }  # fmt: skip


def trained(kind, size, data, out):
    """Return the states of all ranks."""
    if kind == "mpi":
        mpirun = shutil.which("mpirun", path=str(Path(sys.executable).parent)) or "mpirun"
        lines = [
            [mpirun, "--oversubscribe", "-n", str(size), sys.executable, SCRIPT, kind, "0", "0",
             data, out]
        ]  # fmt: skip
    else:
        address = f"{out}.store"
        lines = [
            [sys.executable, SCRIPT, kind, str(rank), str(size), data, out, address]
            for rank in range(size)
        ]
    ranks = [
        subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for line in lines
    ]
    try:
        for each in ranks:
            text, _ = each.communicate(timeout=3000)
            assert each.returncode == 0, text.decode()
    finally:
        for each in ranks:  # the others wait for one that failed
            each.kill()
            each.wait()
            each.stdout.close()
    return [dict(np.load(f"{out}-{rank}.npz")) for rank in range(size)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process makes of all rows: of whole numbers, and of others."""
    folder, rng = tmp_path_factory.mktemp("alone"), np.random.default_rng(0)
    data = folder / "batches.npz"
    whole = rng.integers(-9, 10, (4, 90, 6)).astype(np.float32)
    np.savez(data, whole=whole, real=rng.standard_normal((4, 90, 6)).astype(np.float32))
    return data, trained("alone", 1, data, folder / "state")[0]


@pytest.mark.parametrize("kind", ["gloo", "mpi"])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_ranks_end_where_one_process_ends(kind, size, alone, tmp_path):
    pytest.importorskip("torch" if kind == "gloo" else "mpi4py")
    data, expected = alone
    states = trained(kind, size, data, tmp_path / "state")
    assert len(expected) >= 2 * 2 * 4
    for state in states:
        for key, value in expected.items():
            np.testing.assert_array_equal(state[key], value, err_msg=key)
