"""What the tests of all folders and the docstring examples share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, object]) -> None:
    """Docstring examples may use torch without importing it."""
    doctest_namespace["torch"] = torch
    doctest_namespace["nn"] = torch.nn
