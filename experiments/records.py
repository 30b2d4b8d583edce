"""The records of the cells: one file, a line of JSON for each cell, sorted by the cell's name."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dealias.errors import InputError
from dealias.files import prepare_output, write_whole

Record = dict[str, Any]


class Records:
    """The records in a file; a file that does not exist has none.

    Each record is written when its cell is finished, together with all others, whole: an interrupted run loses no
    finished cell, nor do several processes that write to the same file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Record]:
        """The records by the names of their cells, in the order of the names.

        Raises:
            InputError: a line is not a record.
        """
        if not self.path.exists():
            return {}
        try:
            records = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
            return {record.pop("name"): record for record in records}
        except (OSError, ValueError, LookupError, AttributeError) as error:
            raise InputError(f"results={str(self.path)!r} is not a file of records: {error}") from None

    def add(self, name: str, record: Record) -> None:
        """Write the record of a cell, in place of an earlier one."""
        prepare_output(self.path.parent)
        with self._locked():
            records = sorted({**self.read(), name: record}.items())
            write_whole(self.path, "".join(json.dumps({"name": name, **each}) + "\n" for name, each in records))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # the lock is on the folder: the file itself is replaced
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)
