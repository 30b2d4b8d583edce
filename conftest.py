"""What the tests of all folders and the docstring examples share."""

import pytest
import torch


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Triton's interpreter takes minutes, and must be chosen before anything imports Triton: `make sweep-cuda`."""
    for item in items:
        if item.path.name.startswith("test_cuda"):
            item.add_marker("sweep")


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, object]) -> None:
    """Docstring examples may use torch without importing it."""
    doctest_namespace["torch"] = torch
    doctest_namespace["nn"] = torch.nn
