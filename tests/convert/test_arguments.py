"""Arguments that are refused before any work: one line that names the argument, the value and what would do."""

from __future__ import annotations

import pytest
import torch
from helpers.circular_networks import conv
from helpers.conversion import three_sites
from torch import nn

from dealias import antialias, sites
from dealias.errors import InputError

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_unknown_choices():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(2))
    for wrong in ({"filter": "bin9"}, {"recipe": "zhang"}, {"padding_mode": "wrap"}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))}="):
            antialias(model, X, **wrong)
    with pytest.raises(InputError, match="recipe="):
        sites(model, X, recipe="zhang")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"4": "tri3"}, "'4'"),
        ({"2": "tri3", "layer9.0": "tri3"}, "'layer9.0'"),
        ({"3": "bin99"}, "bin99"),
        ({"3": 0}, "at conv `3`"),
        (lambda site: "bin99", "at max_pool `2`"),
        (lambda site: None, "at max_pool `2`"),
        ("bin99", "bin99"),
        ((1, -1), "normalised"),
    ],
)
def test_what_is_no_filter_is_refused_in_one_line(given, words):
    model = three_sites()
    before = repr(model)
    with pytest.raises(InputError) as caught:
        antialias(model, X, filter=given, inplace=True)
    assert words in str(caught.value)
    assert "filter" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert repr(model) == before


def test_filters_that_would_be_too_long_at_their_stride_are_refused():
    x = torch.randn(1, 3, 800)
    with pytest.raises(InputError, match="use a shorter filter"):
        antialias(nn.Sequential(nn.Conv1d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool1d(200)), x, filter="bin7")


def test_a_filter_for_a_site_that_is_left_alone_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.MaxPool2d(2)).eval()
    with pytest.raises(InputError, match="'0', where no blur is placed: the stem"):
        antialias(model, X, filter={"0": "rect2"})
    antialias(model, X, filter={"0": "rect2"}, stem=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"filter": "tri3"}, "filter='tri3' with method='alias-free'"),
        ({"filter": {"0": "ideal"}}, "with method='alias-free'"),
        ({"recipe": "zhang2019"}, "recipe='zhang2019' with method='alias-free'"),
        ({"placement": "before"}, "placement='before' with method='alias-free'"),
        ({"padding_mode": "reflect"}, "use padding_mode='circular'"),
    ],
)
def test_what_has_no_meaning_is_refused(arguments, words):
    circular = nn.Sequential(conv(2, 4), nn.ReLU(), nn.MaxPool2d(2))
    with pytest.raises(InputError, match=words) as caught:
        antialias(circular, X[:, :2], method="alias-free", **arguments)
    assert len(str(caught.value).splitlines()) == 1
