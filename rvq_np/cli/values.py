"""Options whose text holds several values: ``256,256,64``, ``iterations=80,beam_size=16``."""

from __future__ import annotations

from typing import Any

from ..errors import ParameterError


def whole(command: str, option: str, text: str, lowest: int, example: str) -> tuple[int, ...]:
    """Return whole numbers with commas between them, or raise ParameterError."""
    try:
        found = tuple(int(each) for each in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < lowest:
        raise ParameterError(
            f"{command}: {option} is {text!r}; expected numbers from {lowest} with commas, as "
            f"{example}."
        )
    return found


def named(command: str, option: str, text: str, example: str) -> dict[str, Any]:
    """Return numbers by their names, ``NAME=NUMBER`` with commas, or raise ParameterError.

    Which names there are, and what a number may be, is for the call that takes them to say.
    """
    found: dict[str, Any] = {}
    for each in text.split(",") if text else ():
        name, _, value = each.partition("=")
        try:
            found[name.strip().replace("-", "_")] = _number(value)
        except ValueError:
            raise ParameterError(
                f"{command}: {option} is {text!r}; expected NAME=NUMBER with commas, as {example}."
            ) from None
    return found


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)
