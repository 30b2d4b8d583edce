"""What the tests of all folders and the docstring examples share."""

import importlib.util
import os

import pytest
import torch

if not torch.cuda.is_available():
    # The GPU kernels' tests run in Triton's interpreter. Triton chooses it for each of its functions when that is
    # imported, which PyTorch's compiler may do in any test: so before all of them.
    os.environ.setdefault("TRITON_INTERPRET", "1")

collect_ignore = [] if importlib.util.find_spec("triton") else ["src/dealias/ops/cuda"]


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, object]) -> None:
    """Docstring examples may use torch without importing it."""
    doctest_namespace["torch"] = torch
    doctest_namespace["nn"] = torch.nn
