"""Dataclasses from JSON: every kind of value, and what is said of bad ones."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from dealias.errors import InputError
from dealias.records import from_json, read_json


@dataclass(frozen=True)
class _Inner:
    size: tuple[int, ...]
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class _Outer:
    name: str
    ends: tuple[float, float] | None
    inner: dict[str, list[_Inner]]
    anything: Any = None
    switch: bool = field(default=False)


def test_round_trip(tmp_path: Path) -> None:
    for record in (
        _Outer("x", (0.5, 1), {"one": [_Inner((1, 2, 3)), _Inner((), "b")]}, {"free": [1]}, True),
        _Outer("y", None, {}),
    ):
        (tmp_path / "record.json").write_text(json.dumps(asdict(record)))
        assert read_json(_Outer, tmp_path / "record.json") == record
        assert from_json(_Outer, asdict(record), "here") == record
    assert from_json(_Outer, {"name": "z", "ends": None, "inner": {}}, "here") == _Outer("z", None, {})


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"ends": None, "inner": {}}, "'here' lacks the key name"),
        ({"name": 3, "ends": None, "inner": {}}, "has int for the key name: expected str"),
        ({"name": "x", "ends": [1], "inner": {}}, "has 1 values for the key ends: expected 2"),
        ({"name": "x", "ends": 1, "inner": {}}, "has int for the key ends: expected list or tuple"),
        ({"name": "x", "ends": None, "inner": {"i": [{}]}}, r"lacks the key inner\['i'\]\[0\]\.size"),
        ({"name": "x", "ends": None, "inner": {"i": [{"size": [True]}]}}, r"has bool for the key .*size\[0\]"),
        ({"name": "x", "ends": None, "inner": {"i": [{"size": [], "kind": "c"}]}}, r"has 'c' for the key .*kind"),
        ([], "has list for its content: expected mapping"),
    ],
)
def test_bad_values_are_named(stored: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_json(_Outer, stored, "here")


def test_files_that_are_not_json(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match=r"bad\.json' cannot be read"):
        read_json(_Outer, tmp_path / "bad.json")
    with pytest.raises(FileNotFoundError):
        read_json(_Outer, tmp_path / "missing.json")
