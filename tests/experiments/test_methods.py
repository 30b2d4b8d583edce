"""What experiments/methods.py counts, against counts by hand, and the tables that it writes."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from dealias import certify

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The experiment's modules, which a script finds beside itself."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    names = ("images", "records", "method_networks", "method_costs", "method_pages", "methods")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return {name: __import__(name) for name in names}


def test_agreement_is_what_one_counts_by_hand(modules: dict[str, ModuleType]) -> None:
    """Four images under three shifts: always right, always wrong, right once, wrong once."""
    found = torch.tensor([[1, 5, 2, 3], [1, 5, 4, 3], [1, 5, 4, 0], [1, 5, 2, 3]])
    labels = torch.tensor([1, 6, 2, 3, 9, 9])
    assert modules["methods"].agreement(found, labels) == {
        "consistency": 9 / 12,
        "constant": 2 / 4,
        "adversarial_accuracy": 1 / 4,
        "views": 4,
    }


class Brightest(nn.Module):
    """The class is the quarter of the image that has the brightest pixel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.max_pool2d(x, 16).flatten(1)


def test_views_are_all_shifts_of_their_kind(modules: dict[str, ModuleType]) -> None:
    methods = modules["methods"]
    images = torch.zeros(2, 1, 32, 32)
    images[0, 0, 4, 4] = images[1, 0, 24, 24] = 1
    kinds = {kind: list(views) for kind, views in methods.views(images, True).items()}
    assert {kind: len(views) for kind, views in kinds.items()} == {
        **{"circular": 1024, "half": 3, "third": 8, "zero-fill": 16, "crop": 9}
    }
    assert torch.equal(sum(kinds["circular"]), torch.ones(2, 1, 32, 32))  # the pixel is everywhere once
    found = methods.measure(Brightest(), images, torch.tensor([0, 3]), 2, True)
    assert found["accuracy"] == 1
    assert found["circular"] == {"consistency": 1 / 4, "constant": 0, "adversarial_accuracy": 0, "views": 1025}
    assert found["zero-fill"]["adversarial_accuracy"] == 1


@pytest.mark.parametrize("network", ["vgg_small", "resnet_small"])
def test_networks_are_exact_with_anchors_alone(modules: dict[str, ModuleType], network: str) -> None:
    build, x = modules["method_networks"].build, torch.rand(1, 1, 32, 32)
    plain, anchored = build(network, "none", 3), build(network, "polyphase-none", 3)
    assert all(map(torch.equal, plain.state_dict().values(), anchored.state_dict().values()))
    assert certify(anchored, x, shifts=[1, (3, 6)]).exact
    assert not certify(plain, x, shifts=[1, (3, 6)]).exact


def test_each_method_has_the_weights_of_the_plain_network_and_computes_something_else(modules: Any) -> None:
    networks, x = modules["method_networks"], torch.rand(2, 1, 32, 32)
    built = {method: networks.build("vgg_small", method, 3).eval() for method in networks.METHODS}
    plain = built["none"].state_dict()
    for network in built.values():
        found = network.state_dict()
        assert list(found) == list(plain)
        assert all(map(torch.equal, found.values(), plain.values()))
    with torch.no_grad():
        logits = [network(x) for network in built.values()]
    assert all(not torch.allclose(one, other, atol=1e-4) for one, other in itertools.combinations(logits, 2))


def record(method: str, seed: int, accuracy: float, consistency: float) -> dict[str, Any]:
    """A record of a cell whose shifts of each kind come to the same."""
    kind = {"consistency": consistency, "constant": 0.5, "adversarial_accuracy": 0.25, "views": 4}
    cell = {"data": "digits", "network": "vgg_small", "method": method, "augment": False, "seed": seed}
    kinds = dict.fromkeys(("circular", "half", "third", "zero-fill", "crop"), kind)
    return {**cell, "accuracy": accuracy, "images": 1000, "shifted": 1000, **kinds}


def test_tables_say_exact_only_where_it_is(modules: dict[str, ModuleType], monkeypatch: Any, tmp_path: Path) -> None:
    pages = modules["method_pages"]
    found = [record("none", 0, 0.98, 0.7), record("none", 1, 0.96, 0.8)]
    found += [record("polyphase-none", 0, 0.97, 1.0), record("polyphase-none", 1, 0.97, 0.999999)]
    cost = {"data": "cost", "network": "vgg_small", "machine": "a machine", "ms": {"none": 10.0}, "mib": {"none": 50.0}}
    page = tmp_path / "page.md"
    marks = [
        f"<!-- methods, {data} -->\nold\n<!-- end of methods, {data} -->\n" for data in ("digits", "fashion", "cost")
    ]
    page.write_text("before\n" + "".join(marks) + "after\n")
    monkeypatch.setattr(pages, "PAGE", page)
    named = {str(number): one for number, one in enumerate([*found, {**cost, "ratio": {"none": 1.0}}])}
    pages.write_page(named)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    rows = [line for line in text.splitlines() if line.startswith("| vgg_small")]
    assert rows[0].startswith("| vgg_small | as they are | plain | 97.0 (96.2 to 97.7) |  | 75.0 / 25.0 |")
    assert "| 97.0 (96.2 to 97.7) | +0.0 (sd 1.4) | 99.99 / 25.0 |" in rows[1]
    assert rows[2] == "| vgg_small | plain | 10 | 1.00 | 50 |"
    assert "| 100 / 25.0 |" in pages.table(found[2:3])
