from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest

import dealias


def test_import_needs_nothing_but_torch() -> None:
    """What `import dealias` loads beyond `import torch` is dealias itself and the standard library."""
    code = (
        "import torch, sys, json; before = set(sys.modules); import dealias; dealias.MaxBlurPool2d(2);"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(run.stdout)}
    assert "dealias" in loaded
    installed = set(packages_distributions())
    assert loaded & installed <= {"dealias", "torch"}


def test_the_entry_loads_next_to_nothing() -> None:
    """The command line has to take care of Ctrl-C before what takes time is loaded."""
    code = "import sys; import dealias.cli; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "dealias.cli" in loaded
    assert not loaded & {"enum", "rich", "torch", "typer", "typing"}


def test_the_public_names_exist_before_and_after_their_first_use() -> None:
    code = (
        "import dealias; listed = dir(dealias); exec('from dealias import *');"
        "assert set(dealias.__all__) <= set(listed) & set(globals()), dealias.__all__;"
        "print(*(getattr(dealias, name).__name__ for name in dealias.__all__))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == dealias.__all__
    assert dealias.__version__.count(".") == 2


def test_every_module_is_an_attribute() -> None:
    for name in dealias._MODULES:
        assert getattr(dealias, name).__name__ == f"dealias.{name}"
    with pytest.raises(AttributeError, match="'dealias' has no attribute 'antialised'"):
        dealias.antialised  # noqa: B018
