"""How much is measured: everything, or the small sizes of a trial."""

from __future__ import annotations

from functools import cached_property

from .peers import Sgemm
from .problems import Problem


class Setting:
    """What every question is told: `quick` for a trial, and numbers of `threads` to try."""

    def __init__(self, quick: bool, threads: list[int]):
        self.quick = quick
        self.threads = threads
        self.rounds = 3 if quick else 5
        self.singles = 2000 if quick else 5000

    @cached_property
    def sgemm(self) -> Sgemm:
        """The roofline of the main questions."""
        return Sgemm(2048 if self.quick else 4096)

    @cached_property
    def small_sgemm(self) -> Sgemm:
        """The roofline where it is measured many times: beside each cell of a grid."""
        return Sgemm(1024 if self.quick else 2048)

    def smaller(self, problem: Problem, rows: int = 2048) -> Problem:
        """Return `problem`, in a trial with at most so many rows."""
        return problem._replace(rows=min(rows, problem.rows)) if self.quick else problem
