"""The command line in this process."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

import pytest

from dealias.cli import main


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs `dealias ARGUMENTS` and returns its exit code."""

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["dealias", *map(str, arguments)])
        monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
        before = signal.getsignal(signal.SIGINT)
        try:
            with pytest.raises(SystemExit) as stopped:
                main()
        finally:
            signal.signal(signal.SIGINT, before)
        return int(stopped.value.code or 0)

    return run


@pytest.fixture
def error_of(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `dealias ARGUMENTS`, which must fail with a single line, and returns that line."""

    def error_of(*arguments: object) -> str:
        capsys.readouterr()
        assert run(*arguments) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        return line

    return error_of
