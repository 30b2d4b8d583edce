"""What the tests of conversion share: networks with batch statistics that matter, and an exact oracle."""

from __future__ import annotations

import torch
from torch import nn

from dealias import antialias, sites
from dealias.convert.downsampling import find_downsampling
from dealias.convert.groups import Group
from dealias.convert.recording import record


def randomize(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def three_sites():
    """A max pooling, a strided convolution and an average pooling."""
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()
    return nn.Sequential(*layers, nn.AvgPool2d(2)).eval()


def placed(model, x, **arguments):
    return {(site.kind, site.path) for site in sites(model, x, **arguments) if site.placed}


def refused(model, x, **arguments):
    return [site for site in sites(model, x, **arguments) if site.status == "not placed"]


def check_no_filter(model, x, **arguments):
    """Without a filter, dense layers and their sampling are the strided layers: the network must compute the same."""
    args = x if isinstance(x, tuple) else (x,)
    with torch.no_grad():
        torch.testing.assert_close(antialias(model, x, filter="none", **arguments)(*args), model(*args))


def groups_of(model, x, *, stem=False, recipe="same-size"):
    """The trace of a model, its grids, and by path a group for each layer that subsamples."""
    trace = record(model.eval(), x)
    found, grids = find_downsampling(trace)
    spots = {}
    for spot in found:
        spots.setdefault(spot.call.path, []).append(spot)
    return trace, grids, {path: Group(trace, some, stem, recipe) for path, some in spots.items()}
