"""A fault as a value, and the text it changes."""

from dataclasses import dataclass
from pathlib import Path


class NotOnceError(ValueError):
    """The text of a fault is not in its file exactly once."""


@dataclass(frozen=True)
class Fault:
    """A small change to one file that some test must notice."""

    name: str
    file: str  # from the root of the checkout
    before: str
    after: str
    killers: str  # what pytest runs, separated by blanks: as narrow as can be

    def changed(self, text: str) -> str:
        """Return `text`, what the file holds, with the fault in it."""
        count = text.count(self.before)
        if count != 1:
            raise NotOnceError(f"{self.name}: its text is {count} times in {self.file}; wanted 1.")
        return text.replace(self.before, self.after)

    def in_folder(self, root: Path) -> str:
        """Return what the file would hold in a checkout at `root`."""
        return self.changed((root / self.file).read_text())
