"""CuPy arrays: CUDA kernels on the device where they live, see `rvq_np.kernels.cuda`."""

from typing import Any

from ..kernels.cuda import driver
from . import Entered

ENGINE = driver


def enter(x: Any) -> Entered:
    driver.check(x)
    return Entered(driver, x, None, lambda: x.device)
