"""A run's folder: its settings, and the counts found so far, a line of JSON for each unit of work."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from dealias.errors import InputError
from dealias.files import OutputFolder
from dealias.records import drop_half_line, read_json, read_json_lines

UnitKey: TypeAlias = tuple[str, int, int]
"""Task, group of networks, first image."""
SETTINGS, COUNTS = "settings.json", "counts.jsonl"


@dataclass(frozen=True)
class Record:
    """The counts of a unit of work: a line of `counts.jsonl`.

    Attributes:
        group: of the networks with one preprocessing.
        positions, numbers: of the images that could be read, among all that the place has, and in the source.
        skipped: numbers of the others, and the reasons.
        enlarged: number of images that are smaller than the window.
        counts: for each network; see `dealias.evaluation.tasks.base.Task.count`.
    """

    task: str
    group: int
    start: int
    positions: list[int]
    numbers: list[int]
    skipped: list[tuple[int, str]]
    enlarged: int
    counts: dict[str, dict[str, Any]]

    @property
    def key(self) -> UnitKey:
        """The unit of work."""
        return self.task, self.group, self.start


class RunStore:
    """The folder of one run, written by one process.

    Args:
        folder: open, with the right to write `SETTINGS` and `COUNTS`.
        settings: all on which the counts depend, as JSON.
        resume: continue a run of the same settings if there is one.

    Raises:
        InputError: the folder cannot be written, has a run already, or has one with other settings.
    """

    def __init__(self, folder: OutputFolder, settings: Mapping[str, Any], *, resume: bool) -> None:
        self.folder = folder
        self._lines = folder.path / COUNTS
        wanted = json.loads(json.dumps(settings))
        stored = folder.path / SETTINGS
        if stored.exists() and self._lines.exists():
            if not resume:
                raise InputError(
                    f"output={str(folder.path)!r} has a run already: pass --resume, or name another folder"
                )
            _check_same(str(folder.path), read_json(dict[str, Any], stored), wanted)
        else:  # a run that counted nothing is replaced
            folder.write(SETTINGS, json.dumps(wanted, indent=1) + "\n")
        self._lines = folder.own(COUNTS)
        drop_half_line(self._lines)

    def records(self) -> list[Record]:
        """The records so far, each unit once, in order.

        Raises:
            InputError: a line is not a record, or the folder was removed.
        """
        self.folder.check_exists()
        if not self._lines.exists():
            return []
        found = {record.key: record for record in read_json_lines(Record, self._lines)}
        return [found[key] for key in sorted(found)]

    def append(self, record: Record) -> None:
        """Keep a unit's counts, even if the process is killed next.

        Raises:
            InputError: the disk is full, or the folder was removed.
        """
        self.folder.check_exists()
        line = json.dumps(vars(record), separators=(",", ":")).encode() + b"\n"
        try:
            with open(self._lines, "ab") as file:
                file.write(line)
        except OSError as error:
            raise InputError(
                f"output={str(self.folder.path)!r} cannot be written ({error.strerror}): earlier counts are kept; "
                "make room and continue with --resume"
            ) from None


def _check_same(output: str, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    differing = [key for key in {**stored, **wanted} if stored.get(key) != wanted.get(key)]
    if differing:
        key = differing[0]
        raise InputError(
            f"output={output!r} has a run with other settings ({', '.join(differing)}): {key} was "
            f"{_short(stored.get(key))} and is {_short(wanted.get(key))}; name another folder"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
