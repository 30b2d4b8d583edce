"""Write files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from dealias.errors import InputError


def prepare_output(directory: str | Path) -> Path:
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
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):  # renamed
            os.unlink(temporary)
