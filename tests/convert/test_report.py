"""What a report says of a conversion, beside counts of our own and of PyTorch."""

from __future__ import annotations

import json
from io import StringIO

import numpy as np
import pytest
import torch
from helpers.conversion import randomize
from rich.console import Console
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dealias import sites
from dealias.convert import antialias_with_report
from dealias.convert.report import activation_bytes, sites_table


def small():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU()
    )


def test_flops_by_hand():
    x = torch.randn(1, 3, 32, 32)
    _, report = antialias_with_report(small(), x)
    stem, conv = 2 * 16 * 16 * 4 * 3 * 9, 2 * 4 * 4 * 6 * 4 * 9
    assert report.flops == stem + conv
    pool, blur = 2 * 16 * 8 * 8 * 4, 2 * 16 * 4 * 4 * 6
    assert report.extra_flops == (0, pool, 3 * conv + blur)
    assert report.converted_flops == report.flops + pool + 3 * conv + blur


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v2", "googlenet", "shufflenet_v2_x1_0"])
def test_flops_are_those_that_pytorch_counts(build_network, name):
    model, x = build_network(name, device="meta"), torch.empty(2, 3, 224, 224, device="meta")
    converted, report = antialias_with_report(model, x, stem=True)
    with FlopCounterMode(display=False) as counter:  # counts the blurs too, as they are convolutions there
        converted(x)
    assert report.converted_flops == counter.get_total_flops()
    assert report.flops < report.converted_flops
    assert list(report.sites) == sites(model, x, stem=True)


def test_activation_memory_by_hand():
    x = torch.randn(2, 3, 8, 8, device="meta")
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1, bias=False)).to("meta")
    # the first convolution keeps its input, the ReLU its output, which is the input of the second one
    assert activation_bytes(model, x) == 4 * (2 * 3 * 64 + 2 * 4 * 64)
    assert activation_bytes(model.to(torch.float64), x.double()) == 8 * (2 * 3 * 64 + 2 * 4 * 64)


def test_measuring_leaves_the_model_as_it_is():
    x = torch.randn(2, 3, 32, 32)
    model = small().train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    antialias_with_report(model, x)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_inplace_and_the_arguments():
    x, model = torch.randn(2, 3, 32, 32), randomize(small())
    converted, report = antialias_with_report(model, x, inplace=True, filter=(1.0, 2.0, 1.0), stem=True)
    assert converted is model
    assert report.flops == antialias_with_report(randomize(small()), x)[1].flops
    assert (report.filter, report.stem, report.recipe, report.padding_mode) == (
        [1.0, 2.0, 1.0],
        True,
        "same-size",
        "reflect",
    )


def test_json_and_table():
    x = torch.randn(1, 3, 32, 32)
    _, report = antialias_with_report(small(), x)
    read = json.loads(report.to_json())
    assert [(site["kind"], site["path"], site["extra_flops"]) for site in read["sites"]] == [
        (site.kind, site.path, extra) for site, extra in zip(report.sites, report.extra_flops, strict=True)
    ]
    assert read["converted_flops"] == report.converted_flops
    assert read["activation_bytes"] == report.activation_bytes > 0
    for width in (60, 80, 200):
        console = Console(width=width, record=True, file=StringIO())
        console.print(report)
        shown = console.export_text()
        assert "2 of 3 downsampling sites anti-aliased" in shown
        assert all(len(line) <= width for line in shown.splitlines())
        assert "left alone: the stem" in " ".join(shown.split())
    table = sites_table(sites(nn.Sequential(nn.Conv2d(3, 4, 3, 2)), x))
    assert table.row_count == 1


@pytest.mark.parametrize(
    ("filter", "plain"),
    [("bin5", "bin5"), (3, 3), (np.int64(3), 3), (torch.tensor([1.0, 2.0]), [1, 2]), (np.array([1, 2]), [1, 2])],
    ids=repr,
)
def test_any_filter_is_written_down(filter, plain):
    _, report = antialias_with_report(small(), torch.randn(1, 3, 32, 32), filter=filter)
    assert json.loads(report.to_json())["filter"] == plain


def test_nothing_to_do_costs_nothing():
    x = torch.randn(2, 3)
    with pytest.warns(UserWarning, match="no downsampling site"):
        _, report = antialias_with_report(nn.Linear(3, 5), x)
    assert (report.flops, report.converted_flops, report.sites) == (2 * 2 * 3 * 5, 2 * 2 * 3 * 5, ())
