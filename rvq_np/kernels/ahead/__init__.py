"""The compiled kernels as a shared library, made before anybody calls them: `build`.

`targets` lists the processors, `emit` makes objects for one of them in a process of its own,
`entry.c` is what Python calls, and `linking` compiles that, links all and seals it for `prebuilt`.
Only these need Numba and a C compiler; what they make needs neither.
"""

from .linking import build as build
from .targets import TARGETS as TARGETS
