"""Output folders, and files that are written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from fnmatch import fnmatchcase
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from dealias.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self  # part of typing from Python 3.11

MARKER, LOCK = ".dealias.json", ".dealias.lock"
_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}")  # as `write_whole` names them


class OutputFolder:
    """The folder that one run of a command writes into; a context manager.

    The folder has to be new or empty, or that of an earlier run of the same command: a marker file, `.dealias.json`,
    holds the command and the names of the files that it wrote. While the folder is open, a lock keeps other runs out of
    it. The system gives up the lock of a killed process, so it does not keep out the run that resumes.

    Args:
        path: the folder; it is created.
        command: what writes, such as "convert".
        writes: names of the files that the command writes, relative to the folder, or patterns such as "states/*".
        inputs: the files that the run reads, by the name of their argument.

    Raises:
        InputError: the folder cannot be written; it has files that are not the command's; another run is at work in it;
            or the command would replace one of its inputs.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        command: str,
        *,
        writes: Sequence[str],
        inputs: Mapping[str, str | PathLike[str] | None] | None = None,
    ) -> None:
        self.path, self._argument = Path(path), f"output={str(path)!r}"
        self._command, self._writes = command, (*writes, MARKER, LOCK)
        self._inputs = {name: Path(place) for name, place in (inputs or {}).items() if place is not None}
        self._written: list[str] = []
        check_output(path)
        self._check()

    def __enter__(self) -> Self:
        """Lock the folder, mark it, and remove what killed processes had not yet renamed."""
        from filelock import FileLock, Timeout

        self._created = [place for place in (self.path, *self.path.parents) if not place.exists()]
        prepare_output(self.path)
        self._lock = FileLock(self.path / LOCK)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise InputError(
                f"{self._argument} is in use by {self._holder()}: wait for it, or name another folder"
            ) from None
        with ExitStack() as failure:
            failure.callback(self._lock.release)
            self._check()  # again: another run may have finished since
            for name in filter(self._is_temporary, self._walk()):
                (self.path / name).unlink()
            self._written = _marked_files(self.path)
            self._mark()
            failure.pop_all()  # the folder is claimed: the lock stays
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):
            if not self._written and not self._files():
                (self.path / MARKER).unlink()  # nothing was done
            (self.path / LOCK).unlink()  # under the lock: whoever waits for it sees that its file is gone
            for place in self._created:
                place.rmdir()  # fails where something was written
        self._lock.release()

    @property
    def has_run(self) -> bool:
        """Whether an earlier run of the command wrote into the folder."""
        return bool(_marked_files(self.path))

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file whole; returns its path."""
        path = self.own(name)
        write_whole(path, content)
        return path

    def own(self, name: str) -> Path:
        """The path of a file that the run is about to write, or a pattern of such files; its folder is created."""
        if not self._is_written_by_command(name):
            raise ValueError(f"{name} is not among the files that {self._command} declares: {self._writes}")
        self.check_exists()
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _matches(name, self._written):
            self._written = [*self._written, name]
            self._mark()
        return path

    def check_exists(self) -> None:
        """Check that the open folder was not removed.

        Raises:
            InputError: it was.
        """
        if not (self.path / LOCK).exists():
            raise InputError(f"{self._argument} was removed while dealias {self._command} wrote into it: start again")

    def _check(self) -> None:
        home = self.path.resolve()
        for argument, place in self._inputs.items():
            resolved = place.resolve()
            name = str(resolved.relative_to(home)) if resolved.is_relative_to(home) else None
            if name is not None and self._is_written_by_command(name):
                raise InputError(
                    f"{argument}={str(place)!r} would be replaced: {self._command} writes {name} into "
                    f"{self._argument}; name another folder"
                )
        if not self.path.is_dir():
            return
        theirs, other, marked = self._files(), _marker(self.path).get("command"), _marked_files(self.path)
        if theirs and other != self._command:
            problem = f"is the folder of dealias {other}" if other else f"has other files ({_few(theirs)})"
            raise InputError(
                f"{self._argument} {problem}: name a new or empty folder, or one of dealias {self._command}"
            )
        if foreign := [name for name in theirs if self._is_written_by_command(name) and not _matches(name, marked)]:
            raise InputError(
                f"{self._argument} has {_few(foreign)}, which dealias {self._command} did not write and would replace: "
                "move it, or name another folder"
            )

    def _walk(self) -> list[str]:
        """All files, relative to the folder."""
        return sorted(
            os.path.relpath(os.path.join(folder, name), self.path)
            for folder, _, names in os.walk(self.path)
            for name in names
        )

    def _files(self) -> list[str]:
        return [name for name in self._walk() if name not in (MARKER, LOCK) and not self._is_temporary(name)]

    def _is_temporary(self, name: str) -> bool:
        """Whether a killed process left the file: the beginning of one that the command writes."""
        folder, base = os.path.split(name)
        match = _TEMPORARY.fullmatch(base)
        return match is not None and self._is_written_by_command(os.path.join(folder, match[1]))

    def _is_written_by_command(self, name: str) -> bool:
        return _matches(name, self._writes)

    def _mark(self) -> None:
        holder = {"process": os.getpid(), "host": socket.gethostname()}
        marker = {"command": self._command, "files": self._written, **holder}
        write_whole(self.path / MARKER, json.dumps(marker) + "\n")

    def _holder(self) -> str:
        marker = _marker(self.path)
        if "command" not in marker:
            return "another run"
        return f"dealias {marker['command']}, process {marker.get('process')} on {marker.get('host')}"


def check_output(directory: str | PathLike[str]) -> None:
    """Check that `directory` is a folder that can be written, or can be created; nothing is created.

    Raises:
        InputError: it is not, or cannot.
    """
    path = Path(directory).absolute()
    existing = next(place for place in (path, *path.parents) if place.exists())
    reason = (
        "it is not a folder" if not existing.is_dir() else "no permission" if not os.access(existing, os.W_OK) else ""
    )
    if reason:
        place = "" if existing == path else f"{str(existing)!r}: "
        raise InputError(f"output={str(directory)!r} cannot be written ({place}{reason}): name a folder that can be")


def prepare_output(directory: str | PathLike[str]) -> Path:
    """Create `directory` and check that files can be written there.

    Raises:
        InputError: the folder cannot be created or written.
    """
    path = Path(directory)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"output={str(directory)!r} cannot be written ({reason}): name another folder") from None
    return path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write `content` to a temporary file and rename it to `path`: readers see the old file or the new one."""
    data = content.encode() if isinstance(content, str) else content
    # Named before it is created, so that Ctrl-C in between leaves nothing.
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):  # renamed
            os.unlink(temporary)


def write_report_file(folder: str | PathLike[str], name: str, content: str) -> Path:
    """Write a file about a run into the run's folder, in place of one that dealias wrote or of none.

    Raises:
        InputError: the folder cannot be written, or the file is the user's.
    """
    path = prepare_output(folder) / name
    if path.exists() and not _matches(name, _marked_files(path.parent)):
        raise InputError(f"{str(path)!r} was not written by dealias: move it, or name another folder with --output")
    write_whole(path, content)
    return path


def digest(path: str | PathLike[str]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a file's content."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()[:16]


def _marker(folder: Path) -> dict[str, object]:
    """The content of the folder's marker file; empty where there is none or it is damaged."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return marker if isinstance(marker, dict) else {}


def _marked_files(folder: Path) -> list[str]:
    files = _marker(folder).get("files", [])
    return [name for name in files if isinstance(name, str)] if isinstance(files, list) else []


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
