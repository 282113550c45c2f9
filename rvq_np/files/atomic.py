"""Atomic writing: a file is renamed into place when it is complete."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any


class NewFile:
    """A temporary file beside `path`, to be written and then committed or discarded.

    Attributes
    ----------
    file : binary file
    name : str
        Path of the temporary file.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path).absolute()
        handle, self.name = tempfile.mkstemp(
            dir=self.path.parent, prefix=f".{self.path.name[:64]}."
        )
        self.file: Any = os.fdopen(handle, "w+b")

    def commit(self) -> None:
        """Flush it to disk and rename it into place; if that fails, an existing file is kept."""
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
            os.chmod(self.name, 0o666 & ~_umask())
            os.replace(self.name, self.path)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Delete the temporary file; calling this again does nothing."""
        with contextlib.suppress(OSError):
            self.file.close()
        with contextlib.suppress(OSError):
            os.unlink(self.name)

    def __enter__(self) -> NewFile:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
