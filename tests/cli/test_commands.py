"""How commands are found and run, and how their errors and warnings are shown."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import dealias.models
from dealias.cli import commands


def test_every_module_is_one_command_in_the_order_of_the_help() -> None:
    folder = Path(commands.__file__).parent
    own = {path.stem for path in folder.glob("*.py")} - {"__init__", "commands", "common"}
    # in a process of its own: another test may have imported a command before the others
    code = "from dealias.cli import commands; print(*(each.name for each in commands.app.registered_commands))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == list(commands._MODULES)
    assert set(commands._MODULES) == own


def test_a_mistake_of_dealias_is_told_with_its_traceback(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dealias.models, "list_models", lambda pattern: [][1])
    assert run("models") == 1
    *trace, last = capsys.readouterr().err.splitlines()
    assert trace[0].startswith("Traceback")
    assert "IndexError: list index out of range" in trace
    assert last == f"This is a mistake of dealias. Please report it, with the lines above: {commands._address()}"
    assert commands._address().startswith("https://")


def test_warnings_are_lines_without_control_characters(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(pattern: str) -> list[str]:
        warnings.warn("[b] odd\x1b[31m", stacklevel=1)
        return ["dealias:vgg_small"]

    monkeypatch.setattr(dealias.models, "list_models", warn)
    assert run("models") == 0
    assert capsys.readouterr().err == "warning: [b] odd\\x1b[31m\n"


@pytest.mark.parametrize("place", [0, 1, 2])
def test_debug_shows_the_traceback_from_any_place(
    error_of: Callable[..., str],
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    place: int,
) -> None:
    words = ["models", "no_such_network"]
    assert "no_such_network" in error_of(*words)
    words.insert(place, "--debug")
    with pytest.raises(ValueError, match="no_such_network"):
        run(*words)
