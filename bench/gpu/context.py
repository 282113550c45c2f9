"""The context of a benchmark: writes each row as soon as it is known, in case of a crash."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

Row = dict[str, Any]


class Context:
    """The context of a benchmark: CuPy, the time left, and methods that write rows."""

    def __init__(self, xp: Any, dry: bool, until: float, write: Callable[[Row], None]):
        self.xp = xp
        self.dry = dry  # `xp` is the stub
        self.until = until  # as `time.time`
        self.write = write

    def size(self, real: Any, dry: Any) -> Any:
        return dry if self.dry else real

    @property
    def left(self) -> float:
        return self.until - time.time()

    def note(self, text: str) -> None:
        self.write({"kind": "note", "text": text})

    def check(self, name: str, ok: bool, detail: str = "", trace: str = "") -> None:
        self.write(
            {"kind": "check", "name": name, "ok": bool(ok), "detail": detail, "traceback": trace}
        )

    def figure(self, work: str, who: str, seconds: float, **more: Any) -> None:
        self.write({"kind": "figure", "work": work, "who": who, "seconds": seconds, **more})

    @contextlib.contextmanager
    def fence(self, who: str, work: str = "") -> Iterator[None]:
        """Turn an exception of `who` into a row of the report, and continue."""
        try:
            yield
        except Exception as error:  # of any library, of any type
            self.trouble(who, line(error), traceback.format_exc(), work)

    @contextlib.contextmanager
    def checking(self, name: str) -> Iterator[None]:
        """As `fence`, for a check: an exception is a failed check."""
        try:
            yield
        except Exception as error:
            self.check(name, False, line(error), traceback.format_exc())

    def trouble(self, who: str, message: str, trace: str = "", work: str = "") -> None:
        self.write(
            {"kind": "trouble", "who": who, "work": work, "message": message, "traceback": trace}
        )

    def free(self) -> None:
        """Free the memory that libraries cache on the GPU, for the other libraries."""
        if not self.dry:
            self.xp.get_default_memory_pool().free_all_blocks()
            with contextlib.suppress(Exception):
                import torch

                torch.cuda.empty_cache()


def line(error: BaseException) -> str:
    """Return an error as one line."""
    if isinstance(error, ImportError):
        return f"not importable: {_first(error)}"
    return f"{type(error).__name__}: {_first(error)}"


def _first(error: BaseException) -> str:
    lines = [each.strip() for each in str(error).splitlines() if each.strip()]
    return (lines or ["no message"])[0][:300]
