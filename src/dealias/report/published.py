"""Accuracy and consistency on ImageNet as the paper's authors published them."""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources
from typing import Any


@cache
def published_networks() -> tuple[dict[str, Any], ...]:
    """Accuracy and consistency on ImageNet, in percent, of the paper's networks, before and after anti-aliasing.

    >>> next(row for row in published_networks() if row["model"] == "resnet50")["antialiased_consistency"]
    91.32

    Source: the paper's authors' published table of torchvision's networks.
    """
    return _read_reference("zhang2019_imagenet.csv")


@cache
def published_filters() -> tuple[dict[str, Any], ...]:
    """Accuracy and consistency on ImageNet, in percent, of the paper's networks with each of its filters.

    Source: Zhang (2019), section 4.2.
    """
    return _read_reference("zhang2019_filters.csv")


def _read_reference(name: str) -> tuple[dict[str, Any], ...]:
    text = resources.files("dealias.report").joinpath(f"reference/{name}").read_text(encoding="utf-8")
    return tuple(
        {key: value if key in ("model", "filter") else float(value) for key, value in row.items()}
        for row in csv.DictReader(text.splitlines())
    )
