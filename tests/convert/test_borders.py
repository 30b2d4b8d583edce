"""A cause is named where, and only where, shifts do change the answer of a layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dealias import to_circular
from dealias.convert.borders import Reason, doubts_of, listed, reasons_of
from dealias.convert.frames import Maps
from dealias.convert.recording import record

X = torch.rand(1, 2, 12, 12, dtype=torch.float64)
LAYERS = [
    nn.Conv2d(2, 2, 3, padding=1),
    nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
    nn.Conv2d(2, 2, 3, padding=1, padding_mode="replicate"),
    nn.Conv2d(2, 2, 3, padding="same"),
    nn.Conv2d(2, 2, 1),
    nn.Conv2d(2, 2, 3),
    nn.MaxPool2d(3, 1, 1),
    nn.AvgPool2d(3, 1, 1),
    nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    nn.MaxPool2d(1),
    nn.ConvTranspose2d(2, 2, 3, 1, 1),
    nn.ConvTranspose2d(2, 2, 1),
    nn.ZeroPad2d(1),
    nn.ReflectionPad2d(1),
    nn.ReplicationPad2d(1),
    nn.Upsample(scale_factor=2, mode="nearest"),
    nn.Upsample(scale_factor=2, mode="bilinear"),
    nn.ReLU(),
    nn.LayerNorm((12, 12)),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_cause_is_found_where_shifts_matter(layer):
    torch.manual_seed(1)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    mixed = nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")
    model = nn.Sequential(nn.Conv2d(2, 2, 1), layer, mixed, nn.Softplus(), nn.AdaptiveAvgPool2d(1)).double().eval()
    maps = Maps(record(model, X))
    found = [*reasons_of(maps), *doubts_of(maps)]
    with torch.no_grad():
        changes = max(float((model(X.roll(shift, (2, 3))) - model(X)).abs().max()) for shift in ((1, 0), (0, 5)))
    assert (changes > 1e-9) == bool(found)
    assert all(reason.place.endswith("`1`") for reason in found)
    wrapped = reasons_of(Maps(record(to_circular(model), X)))
    assert not any("to_circular" in reason.cure for reason in wrapped)


def test_windows_over_the_border():
    """`ceil_mode` matters where the last window reaches over the border."""
    for size, named in ((12, False), (13, True)):
        model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.MaxPool2d(2, 2, ceil_mode=True))
        causes = [reason.cause for reason in reasons_of(Maps(record(model, torch.rand(1, 2, size, size))))]
        assert any("ceil_mode" in cause for cause in causes) == named
        assert any("does not divide" in cause for cause in causes) == named


def test_a_line_for_each_cause():
    reasons = [Reason("padding in", f"`{number}`", "stop") for number in (1, 2, 1, 3, 4, 5, 6, 7, 8)]
    assert listed([*reasons, Reason("other", "`1`", "go")]) == [
        "padding in `1`, `2`, `3`, `4`, `5`, `6` and 2 more: stop",
        "other `1`: go",
    ]
