"""Templates of tokens: the text of a code, and the expression that reads it."""

from __future__ import annotations

import re
from typing import Any

from .. import arguments
from ..errors import ParameterError

TEMPLATE = "<{stage}_{code}>"


def letters(stage: int) -> str:
    """Return the letters of a stage: a to z, then aa, ab, as columns of a spreadsheet."""
    name = ""
    stage += 1
    while stage:
        stage, letter = divmod(stage - 1, 26)
        name = chr(ord("a") + letter) + name
    return name


def names_of(template: str, stage: int, size: int) -> list[str]:
    """Return the tokens of a stage by their codes."""
    pattern(template)
    about = {"stage": letters(stage), "number": stage}
    return [template.format(code=code, **about) for code in range(size)]


def pattern(template: Any) -> str:
    """Return the regular expression of a template, or raise."""
    arguments.kind("tokens", "form", template, str)
    parts = re.split(r"(\{\w*\})", template)
    shown = {"{stage}": r"(?P<stage>[a-z]+)", "{number}": r"(?P<number>\d+)",
             "{code}": r"(?P<code>0|[1-9]\d*)"}  # fmt: skip
    fields = parts[1::2]
    apart = all(parts[2:-1:2])  # or digits of one run into those of the next
    named = fields.count("{code}") == 1 and len(fields) == 2 and set(fields) <= set(shown)
    bare = "{" in "".join(parts[::2]) or "}" in "".join(parts[::2])
    if not named or not apart or bare or not (parts[0] or parts[-1]):
        raise ParameterError(
            f"tokens: the template is {template!r}; expected {{code}} and one of {{stage}} and "
            "{number}, each once, with text around and between: '<{stage}_{code}>'."
        )
    return "".join(shown.get(part, re.escape(part)) for part in parts)
