"""Dataclasses from JSON: every kind of value, and what is said of bad ones."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from dealias.errors import InputError
from dealias.records import from_json, read_json, read_json_lines


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
        assert from_json(_Outer, json.dumps(asdict(record)).encode(), "here") == record
    assert from_json(_Outer, b'{"name": "z", "ends": null, "inner": {}}', "here") == _Outer("z", None, {})


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"ends": None, "inner": {}}, "'here' lacks the key name: start again in another folder"),
        ({"name": 3, "ends": None, "inner": {}}, r"has a wrong value for name \(Input should be a valid string\)"),
        ({"name": "x", "ends": [1], "inner": {}}, r"lacks the key ends\.1"),
        ({"name": "x", "ends": 1, "inner": {}}, "has a wrong value for ends"),
        ({"name": "x", "ends": None, "inner": {"i": [{}]}}, r"lacks the key inner\.i\.0\.size"),
        ({"name": "x", "ends": None, "inner": {"i": [{"size": [True]}]}}, r"a wrong value for inner\.i\.0\.size\.0"),
        ({"name": "x", "ends": None, "inner": {"i": [{"size": [], "kind": "c"}]}}, r"inner\.i\.0\.kind .*'a' or 'b'"),
        ([], "'here' is damaged"),
    ],
)
def test_bad_values_are_named(stored: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_json(_Outer, json.dumps(stored).encode(), "here")


def test_files_that_are_not_json(tmp_path: Path) -> None:
    for content in (b"", b"{", b"[1]", b"null", b"\xff\xfe\x00", b"[" * 100_000, b"9" * 5000):
        (tmp_path / "bad.json").write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.json' is damaged") as refusal:
            read_json(_Outer, tmp_path / "bad.json")
        assert str(refusal.value).isprintable()
    with pytest.raises(FileNotFoundError):
        read_json(_Outer, tmp_path / "missing.json")


def test_half_a_last_line_is_no_record_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    lines = tmp_path / "log.jsonl"
    lines.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_json_lines(dict[str, int], lines) == [{"step": 1}, {"step": 2}]
    for damaged in ("", "[1]", "null", "[" * 100_000, '{"step": "1"}'):
        lines.write_text(f'{{"step": 1}}\n{damaged}\n{{"step": 2}}\n')
        with pytest.raises(InputError, match=r"log\.jsonl, line 2' (is damaged|has a wrong value)"):
            read_json_lines(dict[str, int], lines)
