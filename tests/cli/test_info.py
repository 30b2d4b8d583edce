"""`dealias info`."""

from __future__ import annotations

import platform
from collections.abc import Callable

import pytest
import torch

import dealias
from dealias import ops


def test_info_names_versions_and_backends(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info") == 0
    shown = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    rows = {" ".join(line).strip() for line in shown}
    for name, value in (("dealias", dealias.__version__), ("python", platform.python_version())):
        assert f"{name} {value}" in rows
    assert f"torch {torch.__version__}" in rows
    assert f"threads {torch.get_num_threads()}" in rows
    for name, state in ops.backends().items():
        assert any(row.split() == ["backend", name, *state.split()] for row in rows), name
