"""Names that the caller gives: those of a file are changed into those of a family.

A quantizer in a file with other names is then read as any other of its family.  Nothing is dropped:
a tensor beside those that are named must be named as well, be it as one that does not matter.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .. import arguments
from ..errors import CheckpointError, ParameterError
from ._accounts import TRAINING
from ._file import Tensors

NUMBER = "{}"
EXPECTED = "a dictionary of names in the file to names of the family, or None"


def checked(names: Any) -> dict[str, str | None]:
    """Return a map of names whose form is right, or raise ParameterError."""
    if not isinstance(names, Mapping):
        raise arguments.refused("load", "names", names, EXPECTED)
    for old, new in names.items():
        if not isinstance(old, str) or not isinstance(new, str | None):
            raise arguments.refused("load", "names", {old: new}, EXPECTED)
        if new is not None and old.count(NUMBER) != new.count(NUMBER):
            expected = f"as many {NUMBER} in the name of the family as in that of the file"
            raise arguments.refused("load", "names", {old: new}, expected)
    return dict(names)


def renamed(tensors: Tensors, names: Mapping[str, str | None]) -> Tensors:
    """Return the tensors under the names of their family.

    Raises
    ------
    ParameterError
        If a name is of no tensor, or two tensors get one name.
    CheckpointError
        If a tensor lies beside the named ones and has no name.
    """
    source = str(tensors.source)
    given: dict[str, str] = {}
    named: set[str] = set()
    for old, new in names.items():
        form = re.compile(re.escape(old).replace(re.escape(NUMBER), "([0-9]{1,9})"))
        found = [(name, match) for name in tensors if (match := form.fullmatch(name))]
        if not found:
            near = difflib.get_close_matches(old.replace(NUMBER, "0"), list(tensors), 3, 0.4)
            raise ParameterError(
                f"load: names has {old!r}, and {source!r} has no tensor of this name; similar: "
                f"{', '.join(map(repr, near)) or 'none'}."
            )
        for name, match in found:
            if name in named:
                raise ParameterError(f"load: names has two names for {name!r} of {source!r}.")
            named.add(name)
            target = None if new is None else _filled(new, match.groups())
            if target in given:
                raise ParameterError(
                    f"load: names gives {target!r} to both {given[target]!r} and {name!r} of "
                    f"{source!r}; expected one."
                )
            if target is not None:
                given[target] = name
    _refuse_others(tensors, names, named)
    others = {name: name for name in tensors if name not in named}
    for target in set(given) & set(others):
        raise ParameterError(
            f"load: names gives {target!r} to {given[target]!r} of {source!r}, which has a tensor "
            "of that name already. Name that one as well."
        )
    return tensors.under_names(others | given)


def _filled(name: str, numbers: Sequence[str]) -> str:
    for each in numbers:
        name = name.replace(NUMBER, each, 1)
    return name


def _refuse_others(tensors: Tensors, names: Mapping[str, str | None], named: set[str]) -> None:
    """Raise where a tensor lies beside the named ones, under the same beginning of a name."""
    scopes = {old.partition(NUMBER)[0].rpartition(".")[0] for old in names}
    for name in sorted(set(tensors) - named):
        beside = any(scope and name.startswith(f"{scope}.") for scope in scopes)
        if beside and name.rpartition(".")[2] not in TRAINING:
            raise CheckpointError(
                f"load: {str(tensors.source)!r} has {name!r} beside tensors that names has. Give "
                "it the name that the family has for it; None, if it does not change the codes."
            )
