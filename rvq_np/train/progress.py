"""A progress bar over `fit`, where tqdm is installed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from .. import arguments
from ..kernels import compiling
from .stages import FitProgress

Report = Callable[[FitProgress], None]


@contextlib.contextmanager
def reporting(callback: Report | None, progress: bool) -> Iterator[Report | None]:
    """Yield a callback that draws a bar on standard error, if asked for, and calls `callback`."""
    if callback is not None:
        arguments.function("fit", "callback", callback)
    tqdm = compiling.tqdm_class() if arguments.flag("fit", "progress", progress) else None
    if tqdm is None:
        yield callback
        return
    with tqdm(desc="fit", unit="iteration", leave=False) as bar:
        name = "fit"

        def compiles(begins: bool) -> None:
            bar.set_description(f"{name}: compiling" if begins else name)

        def report(info: FitProgress) -> None:
            nonlocal name
            name = f"fit stage {info.stage + 1}/{info.n_q}"
            bar.total = info.n_q * info.iterations
            bar.n = info.stage * info.iterations + info.iteration
            bar.set_description(name, refresh=False)
            bar.set_postfix(error=f"{info.error:.4g}", used=f"{info.utilisation:.0%}")
            if callback is not None:
                callback(info)

        with compiling.watched(compiles):
            yield report
