"""All benchmarks, the most important first: correctness before speed, then the targets."""

from __future__ import annotations

from typing import NamedTuple


class Question(NamedTuple):
    """A title, where ``ask(context)`` is, and its time limit in seconds.

    `at`: module and function below `bench.gpu`; empty where the parent runs processes itself.
    `needs`: with fewer seconds left it is not started.
    """

    title: str
    at: str
    limit: float
    needs: float = 5.0
    right: bool = False  # a check of correctness: its failures make the run fail


QUESTIONS = {
    "sums": Question("Sums of the tensor cores", "sums:ask", 60, right=True),
    "codes": Question("Codes, vectors", "codes:ask_codes", 200, right=True),
    "beams": Question("Beams", "codes:ask_beams", 60, right=True),
    "tally": Question("Counts and sums", "codes:ask_tally", 60, right=True),
    "training": Question("Training", "training:ask", 60, right=True),
    "torch": Question("Torch tensors on the GPU", "codes:ask_torch", 60, right=True),
    "kit": Question("Conformance kit", "", 220, right=True),
    "sanitizer": Question("compute-sanitizer", "", 220, right=True),
    "ceilings": Question("Ceilings", "ceilings:ask", 40),
    "encode": Question("Encoding", "speed:ask_encode", 120, 20),
    "decode": Question("Decoding", "speed:ask_decode", 40, 10),
    "kmeans": Question("An iteration of k-means", "kmeans:ask", 60, 10),
    "frame": Question("One frame", "speed:ask_frame", 90, 10),
    "dims": Question("Encoding, short and long codewords", "speed:ask_dims", 120, 15),
    "growth": Question("Encoding, few rows and many", "speed:ask_growth", 200, 15),
}
RIGHT = [name for name, each in QUESTIONS.items() if each.right]
FAST = [name for name, each in QUESTIONS.items() if not each.right]
APART = ("kit", "sanitizer")  # processes of the parent, beside the worker
