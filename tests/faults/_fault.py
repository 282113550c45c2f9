"""A fault as a value, and the place it changes."""

import re
from dataclasses import dataclass
from pathlib import Path

from ._place import parts
from ._tokens import places, tokens


class NotOnceError(ValueError):
    """What a fault changes is not in the package exactly once."""


@dataclass(frozen=True)
class Fault:
    """A small change to one function that some test must notice.

    Its function is looked for in all files of the package, and `before` in it token by token:
    neither moving a module nor formatting it moves a fault.  See `_place` for what `where` may be.
    """

    name: str
    where: str
    before: str
    after: str
    killers: str  # what pytest runs, separated by blanks: as narrow as can be

    def in_folder(self, root: Path) -> tuple[Path, str]:
        """Return the file to change in a checkout at `root`, and what it would hold."""
        python = self.where.rpartition(":")[0].endswith(".py") or ":" not in self.where
        expected = tokens(self.before, python=python)
        named = parts(root / "rvq_np", self.where)
        found = [(part.path, *span) for part in named for span in places(part.tokens, expected)]
        if len(found) != 1:
            files = sorted({str(part.path.relative_to(root)) for part in named})
            raise NotOnceError(
                f"{self.name}: its text is {len(found)} times in {self.where}, which is in "
                f"{', '.join(files) or 'no file'}; expected once."
            )
        path, begin, end = found[0]
        whole = path.read_text()
        return path, whole[:begin] + self._indented(whole, begin) + whole[end:]

    def _indented(self, whole, begin):
        """Return `after`, indented as the line in which its first character comes to be."""
        margin = re.match(r"[ \t]*", whole[whole.rfind("\n", 0, begin) + 1 : begin]).group()
        first, *rest = self.after.strip("\n").splitlines() or [""]
        less = len(first) - len(first.lstrip())
        lines = [first.lstrip()]
        for line in rest:
            own = len(line) - len(line.lstrip())
            lines.append(" " * max(0, len(margin) + own - less) + line.lstrip())
        return "\n".join(line.rstrip() for line in lines)
