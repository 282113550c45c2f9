"""What values show of themselves in a notebook: a small table in HTML, escaped and self-contained.

Colours are those of the page, so it is readable on a light and on a dark one; nothing is loaded.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

MOST = 32  # rows of a table; a value may have any number
FINGERPRINT = 16  # characters that are shown of one
STYLE = (
    "<style>.rvq-np{font-size:.9em;color:inherit;max-width:100%;overflow-x:auto}"
    ".rvq-np table{border-collapse:collapse;margin:.3em 0;color:inherit;background:none}"
    ".rvq-np th,.rvq-np td{text-align:left;padding:.15em .8em .15em 0;background:none;"
    "border-bottom:1px solid rgba(128,128,128,.4);color:inherit}"
    ".rvq-np summary{cursor:pointer}.rvq-np b{font-weight:600}</style>"
)


def table(
    title: str,
    facts: Iterable[tuple[str, Any]],
    columns: Sequence[str] = (),
    rows: Sequence[Sequence[Any]] = (),
    *,
    shut: bool = True,
) -> str:
    """Return a title, a table of names and values, and a table of rows.

    Parameters
    ----------
    title : str
    facts : iterable of (str, object)
    columns : sequence of str
        Titles of the second table; without any there is none.
    rows : sequence of sequence
        One a stage. `MOST` of them are shown, and how many more there are.
    shut : bool, optional
        Whether the rows are shown after a click only.

    Returns
    -------
    html : str
        A ``div``; every text in it is escaped.
    """
    known = "".join(
        f'<tr><th scope="row">{_text(name)}</th><td>{_text(value)}</td></tr>'
        for name, value in facts
    )
    body = f"<b>{_text(title)}</b><table><tbody>{known}</tbody></table>"
    if columns:
        head = "".join(f'<th scope="col">{_text(each)}</th>' for each in columns)
        lines = "".join(
            "<tr>" + "".join(f"<td>{_text(each)}</td>" for each in row) + "</tr>"
            for row in rows[:MOST]
        )
        more = len(rows) - MOST
        left = f'<tr><td colspan="{len(columns)}">{more} more</td></tr>' if more > 0 else ""
        count = "1 stage" if len(rows) == 1 else f"{len(rows)} stages"
        body += (
            f"<details{'' if shut else ' open'}><summary>{count}</summary><table>"
            f"<thead><tr>{head}</tr></thead><tbody>{lines}{left}</tbody></table></details>"
        )
    return f'<div class="rvq-np">{STYLE}{body}</div>'


def _text(value: Any) -> str:
    return html.escape(str(value))


def array(value: Any) -> str:
    """Return the dtype and shape of an array of any library: ``float32 (2, 16, 100)``."""
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dtype is None or shape is None:
        return type(value).__name__
    return f"{dtype} {tuple(shape)}"


def span(numbers: Iterable[int]) -> str:
    """Return the least and the largest of some numbers as text, or the only one."""
    found = sorted(set(numbers))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def short(fingerprint: str) -> str:
    """Return the beginning of a fingerprint, enough for a reader to tell two apart."""
    return fingerprint[:FINGERPRINT]
