"""Where in the package a fault belongs: a function by its name, whichever file it lives in.

For Python the name is of a function, ``Class.method`` or a constant of a module.  For CUDA it is
the name of a file and of a function or constant in it: ``encode.cu:settled``.
"""

import ast
import functools
import re
from dataclasses import dataclass
from pathlib import Path

from ._tokens import tokens


@dataclass(frozen=True)
class Part:
    """A named part of a file: its text is ``whole[begin:end]``."""

    path: Path
    begin: int
    end: int

    @functools.cached_property
    def tokens(self):
        text = _read(self.path)[self.begin : self.end]
        return tokens(text, python=self.path.suffix == ".py", begin=self.begin)


def parts(package, where):
    """Return all parts that `where` names in the files below the folder `package`."""
    file, colon, name = where.rpartition(":")
    pattern = file if colon else "*.py"
    return [part for path in sorted(package.rglob(pattern)) for part in _named(path).get(name, ())]


def _read(path):
    return _text(path, path.stat().st_mtime_ns)


@functools.cache
def _text(path, changed):
    return path.read_text()


def _named(path):
    return _all_named(path, path.stat().st_mtime_ns)


@functools.cache
def _all_named(path, changed):
    found = {}
    spans = _of_python(_read(path)) if path.suffix == ".py" else _of_cuda(_read(path))
    for name, begin, end in spans:
        found.setdefault(name, []).append(Part(path, begin, end))
    return found


def _of_python(text):
    lines = [0]
    for line in text.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    encoded = text.splitlines()

    def at(line, column):  # ast counts columns in bytes
        return lines[line - 1] + len(encoded[line - 1].encode()[:column].decode())

    def walk(body, prefix):
        for node in body:
            begin = min([node, *getattr(node, "decorator_list", ())], key=lambda n: n.lineno)
            span = at(begin.lineno, begin.col_offset), at(node.end_lineno, node.end_col_offset)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield prefix + node.name, *span
            elif isinstance(node, ast.ClassDef):
                yield from walk(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        yield prefix + target.id, *span
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield prefix + node.target.id, *span
            elif isinstance(node, ast.If | ast.Try):
                yield from walk(ast.iter_child_nodes(node), prefix)

    return walk(ast.parse(text).body, "")


def _of_cuda(text):
    """Yield each function and constant outside of functions; bodies of structs are looked into."""
    found, begin, depth, opened = tokens(_without_directives(text), python=False), 0, 0, 0
    for n, token in enumerate(found):
        if token.text == "{":
            if depth == 0 and _declared(found[begin:n])[0] == "scope":
                begin = n + 1
                continue
            opened = n if depth == 0 else opened
            depth += 1
        elif token.text == "}" and depth:
            depth -= 1
            kind, name = _declared(found[begin:opened])
            if depth == 0 and kind == "function":
                yield name, found[begin].begin, token.end
                begin = n + 1
        elif depth == 0 and token.text in ("}", ";"):
            kind, name = _declared(found[begin:n])
            if kind == "constant":
                yield name, found[begin].begin, token.end
            begin = n + 1


def _declared(declaration):
    """Return what some tokens outside of functions begin: a kind, and the name."""
    texts = [token.text for token in declaration]
    if "=" in texts:
        before = texts[: texts.index("=")]
        while before and not re.fullmatch(r"[A-Za-z_]\w*", before[-1]):
            before.pop()
        return "constant", before[-1] if before else None
    if "(" in texts:
        depth = 0
        for n in range(len(texts) - 1, -1, -1):  # the last list in brackets holds the parameters
            depth += (texts[n] == ")") - (texts[n] == "(")
            if depth == 0 and texts[n] == "(":
                return "function", texts[n - 1]
    if any(text in ("struct", "namespace", "union", "extern") for text in texts):
        return "scope", None
    return None, None


def _without_directives(text):
    """Return the text, as long as it was, with preprocessor lines blank."""
    return re.sub(
        r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: " " * len(m.group()), text, flags=re.M
    )
