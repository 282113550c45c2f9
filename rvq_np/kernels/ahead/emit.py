"""Objects of the kernels for one processor, called by `linking`.

``python -m rvq_np.kernels.ahead.emit TARGET FOLDER SHARE SHARES`` makes one share of them.  In a
process of its own, because LLVM ends the one in which it meets code it cannot translate, and
because the shape of the kernels is that of the processor Numba compiles for (`target.target_of`).
Writes an object a kernel and signature, and a table: their names, signatures and results.
"""

import contextlib
import functools
import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import llvmlite.binding as llvm
import numba
from numba.np.arrayobj import make_array, populate_array

from ..compiled import entries, jit
from ..compiled.jit import cgutils, cpu_target, intrinsic, ir
from .targets import TARGETS, Target

types: Any = jit.types
LETTERS = {
    "f": types.float32, "d": types.float64, "?": types.boolean,
    "b": types.int8, "h": types.int16, "i": types.int32, "l": types.int64,
    "B": types.uint8, "H": types.uint16, "I": types.uint32, "L": types.uint64,
}  # fmt: skip
RESULTS = {
    types.none: "n", types.int64: "l", types.uint64: "L", types.float32: "d", types.float64: "d",
}  # fmt: skip
WRAPPER = types.void(*[types.CPointer(types.int64)] * 2, types.CPointer(types.float64))
_I64 = ir.IntType(64)


def main(name: str, folder: Path, share: int, shares: int) -> None:
    """Write the objects and the table of a share of the kernels of one target."""
    target = TARGETS[name]
    with taken_for(target):
        from ..compiled import target as shapes
    compiled, machine, table = compiler(), machine_of(target), []
    every = [
        (entry, signature)
        for entry in entries.ENTRIES
        for signature in entries.signatures(entry, shapes.TARGET.screens)
    ]
    with for_no_call():
        for number in range(share, len(every), shares):
            entry, signature = every[number]
            symbol = f"rvq_{_symbol(name)}_{number}"
            code, result = compiled(body_of(entry), signature)
            module = module_of(code, symbol, target, machine)
            (folder / f"{symbol}.o").write_bytes(machine.emit_object(module))
            table.append([entry, signature, result, symbol])
    shape = [shapes.LANES, shapes.VECTORS, list(shapes.TARGET.screens), shapes.TARGET.fused]
    text = json.dumps({"shape": shape, "kernels": table})
    (folder / f"{_symbol(name)}.{share}.json").write_text(text)


@functools.cache
def body_of(entry: str) -> Any:
    """Return a kernel as those that others call are: without Numba's reference counts."""
    module, _, function = entry.partition(".")
    kernel = getattr(importlib.import_module(f"..compiled.{module}", __package__), function)
    options = {each: kernel.targetoptions[each] for each in ("nogil", "fastmath", "error_model")}
    return numba.njit(_nrt=False, **options)(kernel.py_func)


def compiler() -> Any:
    """Return ``(body, signature)``: LLVM code of a function that takes addresses, and a result."""
    readers: dict[str, Any] = {}

    def compiled(body: Any, signature: str) -> tuple[Any, str]:
        scope: dict[str, Any] = {"body": body, "put_whole": _put(), "put_real": _put()}
        at, arguments, kinds = 0, [], []
        for place, token in enumerate(signature.split()):
            if token == "n":
                arguments.append("None")
                kinds.append(types.none)
                continue
            reader, kind, cells = readers.setdefault(token, _reader(token))
            scope[f"read{place}"] = reader
            arguments.append(f"read{place}(cells, {at})")
            kinds.append(kind)
            at += cells
        body.compile(tuple(kinds))
        result = RESULTS[body.overloads[tuple(kinds)].signature.return_type]
        call = f"body({', '.join(arguments)})"
        line = {"n": call, "d": f"put_real(real, {call})"}.get(result, f"put_whole(whole, {call})")
        exec(f"def wrapper(cells, whole, real):\n    {line}\n", scope)
        made = numba.njit(
            [WRAPPER], _nrt=False, nogil=True, error_model="numpy",
            no_cpython_wrapper=True, no_cfunc_wrapper=True,
        )(scope["wrapper"])  # fmt: skip
        return made.overloads[WRAPPER.args], result

    return compiled


def _reader(token: str) -> tuple[Any, Any, int]:
    """Return what reads an argument from the cells of a call, its type, and how many it takes."""
    number = LETTERS[token[0]]
    if len(token) == 1:
        return _number(number), number, 1
    ndim = int(token[1])
    kind = types.Array(number, ndim, "A" if token.endswith("A") else "C")
    return _array(kind), kind, 1 + 2 * ndim


def _cell(builder: Any, arguments: Any, more: int) -> Any:
    """Return a cell of the call, `more` after the place that the arguments of a reader say."""
    cells, place = arguments
    return builder.load(builder.gep(cells, [builder.add(place, ir.Constant(_I64, more))]))


def _number(kind: Any) -> Any:
    @intrinsic
    def read(context: Any, cells: Any, place: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            number = _cell(builder, arguments, 0)
            return builder.bitcast(number, context.get_value_type(kind))

        return kind(cells, types.int64), code

    return read


def _array(kind: Any) -> Any:
    @intrinsic
    def read(context: Any, cells: Any, place: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            found = [_cell(builder, arguments, n) for n in range(1 + 2 * kind.ndim)]
            item = context.get_data_type(kind.dtype)
            made = make_array(kind)(context, builder)
            populate_array(
                made,
                data=builder.inttoptr(found[0], item.as_pointer()),
                shape=cgutils.pack_array(builder, found[1 : 1 + kind.ndim]),
                strides=cgutils.pack_array(builder, found[1 + kind.ndim :]),
                itemsize=ir.Constant(_I64, context.get_abi_sizeof(item)),
                meminfo=None,
            )
            return made._getvalue()

        return kind(cells, types.int64), code

    return read


def _put() -> Any:
    @intrinsic
    def put(context: Any, to: Any, value: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            cast = context.cast(builder, arguments[1], signature.args[1], to.dtype)
            builder.store(cast, arguments[0])
            return context.get_dummy_value()

        return types.void(to, value), code

    return put


def taken_for(target: Target) -> Any:
    """Let kernels have the shape of a processor that Numba cannot compile for on this one."""
    if target.machine == "x86_64":
        return contextlib.nullcontext()  # NUMBA_CPU_FEATURES has said it all
    codegen = type(cpu_target.target_context.codegen())
    features = ",".join(f"+{each}" for each in target.features)
    return mock.patch.object(codegen, "magic_tuple", return_value=(target.machine, "", features))


@contextlib.contextmanager
def for_no_call() -> Iterator[None]:
    """Spare Numba the machine code of this processor, which may have none for what another has."""
    context = type(cpu_target.target_context)
    library = type(cpu_target.target_context.codegen().create_library("unused"))

    def linked(_: Any, code: Any, *others: Any) -> Any:
        code.finalize()
        return [].append  # Numba takes any builtin, another one each time

    with (
        mock.patch.object(context, "get_executable", linked),
        mock.patch.object(library, "_finalize_specific", return_value=None),
    ):
        yield


def machine_of(target: Target) -> Any:
    """Return what makes machine code for a target."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    triple = {"linux": "{}-unknown-linux-gnu", "darwin": "{}-apple-darwin"}.get(
        sys.platform, "{}-pc-windows-msvc"
    )
    return llvm.Target.from_triple(triple.format(target.machine)).create_target_machine(
        cpu=target.cpu,
        features=",".join(f"+{each}" for each in target.features),
        opt=3,
        reloc="pic",
        codemodel="default",
    )


def module_of(compiled: Any, symbol: str, target: Target, machine: Any) -> Any:
    """Return one function for another machine, under a name of ours; all it calls is within."""
    lines = compiled.library.get_llvm_str().splitlines()
    text = "\n".join(each for each in lines if not each.startswith("target "))
    if target.machine != "x86_64":
        text = _without_processor(text)
    text = text.replace("@llvm.log2.f64(", "@rvq_np_log2(")  # see `entry.c`
    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    own = compiled.fndesc.llvm_func_name
    for function in module.functions:
        if function.is_declaration:
            continue
        if function.name == own:
            function.linkage, function.name = "external", symbol
        else:
            function.linkage = "internal"
    module.verify()
    return module


def _without_processor(text: str) -> str:
    return re.sub(r'"target-(?:cpu|features)"="[^"]*"', "", text)


def _symbol(name: str) -> str:
    return "".join(each if each.isalnum() else "_" for each in name)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
