"""Source text as tokens, so that neither blanks nor comments nor line breaks matter.

One reader serves Python and CUDA, and fragments of either: a fault may begin inside a bracket.
"""

import re
from dataclasses import dataclass

_PYTHON = re.compile(
    r"""
    (?P<blank>[\s\\]+|\#[^\n]*)
    |(?P<string>[rbfuRBFU]{0,2}(?:'''(?:\\.|[^\\])*?'''|\"\"\"(?:\\.|[^\\])*?\"\"\"
        |'(?:\\.|[^\\'\n])*'|"(?:\\.|[^\\"\n])*"))
    |(?P<token>\w+(?:\.\d+)?(?:(?<=[eE])[+-]\d+)?|\*\*=?|//=?|<<=?|>>=?|[-+*/%&|^@=<>!:]=|->|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_CUDA = re.compile(
    r"""
    (?P<blank>[\s\\]+|//[^\n]*|/\*.*?\*/)
    |(?P<string>'(?:\\.|[^\\'\n])*'|"(?:\\.|[^\\"\n])*")
    |(?P<token>\w+(?:\.\w*)?(?:(?<=[eE])[+-]\d+)?|<<=?|>>=?|&&|\|\||\+\+|--|[-+*/%&|^=<>!]=|->|.)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Token:
    text: str
    begin: int  # where its characters begin and end in the whole
    end: int


def tokens(text, *, python=True, begin=0):
    """Return the tokens of `text`, a comma before a closing bracket left out."""
    found = []
    for match in (_PYTHON if python else _CUDA).finditer(text):
        if match.lastgroup == "blank":
            continue
        reported = match.group()
        if match.lastgroup == "string" and python:
            reported = _same_quotes(reported)
        if reported in (")", "]", "}") and found and found[-1].text == ",":
            found.pop()
        found.append(Token(reported, begin + match.start(), begin + match.end()))
    return found


def places(within, expected):
    """Return each ``(begin, end)`` in characters at which the tokens `expected` are."""
    texts, sought = [each.text for each in within], [each.text for each in expected]
    return [
        (within[n].begin, within[n + len(sought) - 1].end)
        for n in range(len(texts) - len(sought) + 1)
        if sought and texts[n : n + len(sought)] == sought
    ]


def _same_quotes(string):
    """Return a string of single quotes as one of double quotes, where both say the same."""
    prefix, quote = re.match(r"(\w*)('''|\"\"\"|'|\")", string).groups()
    inner = string[len(prefix) + len(quote) : -len(quote)]
    if quote != "'" or '"' in inner or "\\" in inner:
        return string
    return f'{prefix}"{inner}"'
