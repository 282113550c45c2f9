"""Which kernels are called from Python, and with what types: what is compiled ahead of time.

A signature has one token an argument: a letter and the number of dimensions of an array in C order,
or a letter alone for a number.

    f d         float32, float64            b h i l     int8, int16, int32, int64
    ?           bool                        B H I L     uint8, uint16, uint32, uint64
    n           None                        A after it  strides of any kind

Where an array has other strides and no signature says so, a copy in C order is used in its place.

``T`` stands for float32 and then for float64, ``P`` and ``Q`` for the types of a screen's panels
and of the rows it reads, together; ``M`` and ``V`` for float32 and float64, each on its own;
``U`` for the types of codes in a trie, and ``W`` for int32 and int64.
"""

import itertools
from collections.abc import Iterator

SCREENS = {
    "uint8": ("B", "b"),
    "int8": ("b", "b"),
    "int16": ("h", "h"),
    "float32": ("f", "f"),
}  # of panels, of quantized rows

_PLAN = "T1 T1 d1 P1 f2 {maps} d1 l2 d2"  # a plan's arrays, see `packing.Plan`
_SPACE = "Q2 f2 i2 d1 d1 f2 T2 d1 i1 d1 d1 f1"  # see `search.workspace`
_BEAMS = "Q2 f2 i2 d1 d1 d2 d1 d1 f2 T1 T1 i2 i2 l1 d1 f1 i1 i1 i1 d1 l1 l1 d1"  # `beam.workspace`
_ENCODE = f"T2 {_PLAN} {_SPACE} {{folds}} i2 l l1 {{others}}"

ENTRIES: dict[str, tuple[str, ...]] = {
    "search.encode": (
        _ENCODE.format(maps="n", folds="n n n", others="n"),
        _ENCODE.format(maps="n", folds="n n n", others="d1"),
        _ENCODE.format(maps="d1", folds="n n f1", others="n"),
        _ENCODE.format(maps="d1", folds="T1 d2 f1", others="n"),
    ),
    "beam.encode": (f"T2 l {_PLAN.format(maps='n')} {_BEAMS} i3 l",),
    "gather.decode": ("i2 T1 l1 T2 l l",),
    "gather.subtract": ("T2 T2 i1",),
    "gather.normalize_rows": ("T2 l l",),
    "gather.path_distances": ("T2 T1 l1 i3 d2 l l",),
    "gather.squared_distances": ("T2 l1 T2 i1 d1 l l",),
    "maps.transform": ("T2 M1 V2 l l",),
    "measure.measure": ("f2 I1 L1 l1 L1 d1 ?1", "d2 L1 L1 l1 L1 d1 ?1"),
    "panels.largest_of": ("T2",),
    "panels.squares_of": ("T2 d1 d d1 d1",),
    "panels.pack": ("T2 d1 d l l d1 P1 I1 I1 d1 d1 l l",),
    "panels.sides": ("d1 d1 d1 T1 d d d f2 l d1", "d1 d1 d1 T1 d d d f2A l d1"),
    "panels.mean_bits": ("T2 d1",),
    "averages.add_columns": ("T2 i1 d1 d3 l l",),
    "averages.ends": ("I1 I1", "L1 L1"),
    "averages.squared_distances": ("T2 T2 i1 d1 l l",),
    "averages.advance": ("T2 T2 M2 i1 M2 i1 l l l",),
    "averages.average": ("f2 f2 d2 ?1 ?1 d1 d f2 f2 l l",),
    "averages.move": ("f2 f2 T2 d1 l1 l1 ?1 ?1 d1 d l1 T2 d f2 f2 d3 l l",),
    "averages.replace": ("f2 f2 l1 T2 d l l",),
    "bits.pack": ("i1 l l I1",),
    "bits.unpack": ("I1 l l i1",),
    "bits.encode": ("i1 l l1 l1 L1 I1",),
    "bits.decode": ("I1 L1 i1 l1 l1 l i1",),
    "fingerprints.fingerprint": ("L1 L1 L2",),
    "ids.take": ("l1 l1 l1 l1 l1",),
    "ids.descend": ("U1 W1 l l2 l1",),
    "ids.allow": ("U1 W1 l1 ?2",),
    "ids.seek": ("d2 d1 l1 d1 l2 d2 i2 i1 l1 ?1 l l d2 i3 d1 d1 d1 l1 i2 d1 l1 i2",),
    "ids.auction": ("l1 l1 i2 d2 d1 d1 l d l2 d2 l1 l l1",),
}


def signatures(name: str, screens: tuple[str, ...]) -> Iterator[str]:
    """Yield the signatures of a kernel where a processor has these screens, each once."""
    for template in ENTRIES[name]:
        several = {"T": "fd", "P": screens, "M": "fd", "V": "fd", "U": "BHI", "W": "il"}
        there = [letter for letter in several if letter in template]
        for chosen in itertools.product(*(several[letter] for letter in there)):
            found = template
            stand_for = dict(zip(there, chosen, strict=True))
            if "P" in stand_for:
                stand_for["P"], stand_for["Q"] = SCREENS[stand_for["P"]]
            for letter, stands_for in stand_for.items():
                found = found.replace(letter, stands_for)
            yield found
