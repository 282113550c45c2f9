"""The extent of a run: all sizes, or the small ones of a trial run."""

from __future__ import annotations

from functools import cached_property

from .peers import Sgemm
from .problems import Problem


class Setting:
    """The settings of all benchmarks: `quick` for a trial run, and numbers of `threads`."""

    def __init__(self, quick: bool, threads: list[int]):
        self.quick = quick
        self.threads = threads
        self.rounds = 3 if quick else 5
        self.singles = 2000 if quick else 5000

    @cached_property
    def sgemm(self) -> Sgemm:
        """The roofline of the main benchmarks."""
        return Sgemm(2048 if self.quick else 4096)

    @cached_property
    def small_sgemm(self) -> Sgemm:
        """The roofline where it is measured many times: once per cell of a grid."""
        return Sgemm(1024 if self.quick else 2048)

    def smaller(self, problem: Problem, rows: int = 2048) -> Problem:
        """Return `problem`, in a trial run with at most `rows` rows."""
        return problem._replace(rows=min(rows, problem.rows)) if self.quick else problem
