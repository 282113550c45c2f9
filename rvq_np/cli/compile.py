"""``rvq-np compile``: the kernels as a shared library, for processes that shall start at once."""

from __future__ import annotations

import argparse
from typing import Any

from ..files.atomic import NewFile
from . import outputs, said, wheels


def add_to(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = commands.add_parser(
        "compile",
        help="compile all kernels ahead of time into a shared library",
        description="Compile all kernels into a shared library. Put it into the folder of the "
        "package as _kernels.so (.dylib, .dll), or name it in RVQ_NP_KERNELS: the first call "
        "then needs no compiler, and Numba is not imported. Needs Numba and a C compiler.",
    )
    parser.add_argument(
        "--target", nargs="+", default=["native"], metavar="TARGET",
        help="processors to compile for: native, x86-64-v4+vnni, x86-64-v4, x86-64-v3+vnni, "
        "x86-64-v3, x86-64-v2, aarch64+dotprod or aarch64; a library may hold several of one "
        "machine (default: native)",
    )  # fmt: skip
    parser.add_argument(
        "--wheel", metavar="FILE",
        help="wheel of rvq_np for all machines: write a copy that contains the library, with the "
        "tag of its platform, into the folder OUTPUT (needs pip install 'rvq-np[wheel]')",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", required=True,
        help="library to write: .so, .dylib or .dll; with --wheel a folder",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Compile, and print what was written."""
    from ..kernels import ahead

    if options.wheel is not None:
        wheels.check(options.wheel, options.output)
        library, about = ahead.build(options.target)
        _say(options, wheels.make(options.wheel, library, about, options.output), about)
        return
    out = outputs.of("compile", options.output, [])
    library, about = ahead.build(options.target)
    with NewFile(out.path) as new:  # processes may have the old library in their memory
        new.file.write(library)
    _say(options, options.output, about, out.said)


def _say(options: argparse.Namespace, path: str, about: dict[str, Any], to: Any = None) -> None:
    names = [each["name"] for each in about["targets"]]
    line = f"{path}: kernels for {', '.join(names)} on {about['system']}"
    said.result(options, {"output": path, "targets": names, "system": about["system"]}, [line], to)
