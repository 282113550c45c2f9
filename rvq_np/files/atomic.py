"""The one writer of files: whoever writes under a name that a user gave, writes by `NewFile`.

===========================  =====================================================================
a regular file, or none      a temporary file in the same folder replaces it when it is complete;
                             mode and, where the system allows it, owner and group are kept
a symbolic link              stays: what it leads to is replaced, or created
a pipe or a device           is written into, when everything is complete
an open file by its name     ``/dev/stdout``, ``/dev/fd/3``: is written into at its position
`STDOUT`                     standard output; the command line means it by ``-``
===========================  =====================================================================

What can be refused before any work is refused by `check`.  Errors name the file as the user did,
never the temporary one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

MOST_LINKS = 40  # as Linux


class _StandardOutput(os.PathLike[str]):
    """A path that is no name of a file, so that a file may have the name ``-``."""

    def __fspath__(self) -> str:
        return "-"

    def __str__(self) -> str:
        return "-"


STDOUT = _StandardOutput()


class NewFile:
    """A binary file to write and read, which becomes `path` when it is committed.

    Attributes
    ----------
    file : binary file
        It can seek, whatever `path` is.

    Raises
    ------
    OSError
        As `check`.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = path
        self._place: str | None = None  # of a regular file; None: written into
        self._name = ""
        self._old = check(path)
        if is_replaced(path, self._old):
            self._place = os.path.realpath(path)
            with _named(path):
                self._name, self.file = _temporary(
                    os.path.dirname(self._place), 0o666 if self._old is None else 0o600
                )
        else:
            self.file = tempfile.TemporaryFile()  # noqa: SIM115

    def commit(self) -> None:
        """Put it in its place; if that fails, an existing regular file is kept."""
        try:
            self.file.flush()
            if self._place is None:
                with _named(self.path):
                    _copy(self.file, self.path)
                self.file.close()
                return
            os.fsync(self.file.fileno())
            self.file.close()
            with _named(self.path):
                if self._old is not None:
                    os.chmod(self._name, _owned(self._name, self._old))
                os.replace(self._name, self._place)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Delete the temporary file; calling this again does nothing."""
        with contextlib.suppress(OSError):
            self.file.close()
        if self._name:
            with contextlib.suppress(OSError):
                os.unlink(self._name)

    def __enter__(self) -> NewFile:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()


def check(path: str | os.PathLike[str]) -> os.stat_result | None:
    """Return what is at `path` now, or None; raise if it cannot be written.

    Raises
    ------
    FileNotFoundError
        If the folder is missing. The message names it.
    IsADirectoryError
        If `path` is a folder.
    PermissionError
        If the file, or its folder, must not be written.
    OSError
        If `path` is no name of a file.
    """
    if path is STDOUT:
        return None
    name = os.fspath(path)
    if not name or "\0" in os.fsdecode(name):
        raise OSError(errno.EINVAL, "expected the name of a file to write", name)
    try:
        found = os.stat(path)
    except FileNotFoundError:
        found = None
    folder = os.path.dirname(os.path.realpath(path))
    if found is None and not os.path.isdir(folder):
        raise FileNotFoundError(f"there is no folder {folder!r} to write {str(path)!r} into.")
    ends = os.fsdecode(name)[-1] in (os.sep, os.altsep)
    if ends or (found is not None and stat.S_ISDIR(found.st_mode)):
        raise IsADirectoryError(f"{str(path)!r} is a folder; expected the name of a file to write.")
    if found is not None and not os.access(path, os.W_OK):
        raise PermissionError(f"{str(path)!r} must not be written: it is read-only.")
    if is_replaced(path, found) and not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(
            f"the folder {folder!r} must not be written, so {str(path)!r} can be neither created "
            "nor replaced."
        )
    return found


def remove(path: str | os.PathLike[str]) -> None:
    """Remove the regular file that `path` names or links to, if there is one; links stay."""
    target = os.path.realpath(path)
    if os.path.isfile(target):
        with contextlib.suppress(FileNotFoundError), _named(path):
            os.unlink(target)


def is_replaced(path: Any, found: os.stat_result | None) -> bool:
    """Whether a new file replaces `found`, what is at `path`; anything else is written into."""
    if path is STDOUT:
        return False
    if found is None:
        return True
    return stat.S_ISREG(found.st_mode) and _descriptor(path) is None


def _temporary(folder: str, mode: int) -> tuple[str, Any]:
    """Return the name of a new file in `folder`, short whatever the final name, and the file."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        name = os.path.join(folder, f".{secrets.token_hex(6)}.tmp")
        with contextlib.suppress(FileExistsError):
            return name, os.fdopen(os.open(name, flags, mode), "w+b")


def _owned(name: str, old: os.stat_result) -> int:
    """Give the file the owner and group of the old one, if allowed; return the mode it is due."""
    mode = stat.S_IMODE(old.st_mode)
    new = os.stat(name)
    if not hasattr(os, "chown") or (new.st_uid, new.st_gid) == (old.st_uid, old.st_gid):
        return mode
    for owner in (old.st_uid, -1):  # whoever may not give files away may still have the group
        try:
            os.chown(name, owner, old.st_gid)
        except OSError:
            continue
        if owner != -1 or new.st_uid == old.st_uid:
            return mode
    return mode & 0o1777  # not to run with the rights of another owner


def _copy(file: Any, path: Any) -> None:
    file.seek(0)
    with _opened(path) as target:
        shutil.copyfileobj(file, target, 1 << 20)
        target.flush()


@contextlib.contextmanager
def _opened(path: Any) -> Iterator[Any]:
    """Yield the open pipe, device or standard output."""
    if path is STDOUT:
        if not hasattr(sys.stdout, "buffer"):
            raise OSError(errno.EBADF, "standard output takes text only here")
        sys.stdout.flush()
        yield sys.stdout.buffer
        return
    descriptor = _descriptor(path)
    if descriptor is not None:
        with os.fdopen(os.dup(descriptor), "wb") as target:
            yield target
        return
    with open(path, "wb") as target:
        yield target


def _descriptor(path: Any) -> int | None:
    """Return the number of the open file of this process that `path` names by way of links."""
    name = os.path.abspath(os.fsdecode(path))
    for _ in range(MOST_LINKS):
        folder = os.path.realpath(os.path.dirname(name))
        base = os.path.basename(name)
        own = rf"/proc/({os.getpid()}|self)(/task/\d+)?/fd|/dev/fd"
        if base.isascii() and base.isdigit() and re.fullmatch(own, folder):
            return int(base)
        if not os.path.islink(name):
            return None
        name = os.path.join(folder, os.readlink(name))
    return None


@contextlib.contextmanager
def _named(path: Any) -> Iterator[None]:
    """Let errors of the system name the file as the user did."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        if path is STDOUT:
            raise OSError(error.errno, error.strerror) from error
        raise OSError(error.errno, error.strerror, os.fsdecode(path)) from error
