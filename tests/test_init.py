from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import packages_distributions

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


def test_the_public_names_exist() -> None:
    for name in dealias.__all__:
        assert hasattr(dealias, name)
    assert dealias.__version__.count(".") == 2
