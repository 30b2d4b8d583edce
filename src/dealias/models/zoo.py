"""Create networks by name: torchvision's, timm's, dealias's own, and those of importable factories."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from os import PathLike
from typing import Any

import torch
from torch import nn

from dealias.convert import antialias as convert
from dealias.errors import InputError, InputTypeError, as_int, check_flag, users_code
from dealias.filters import Filter
from dealias.models.checkpoints import load_weights
from dealias.models.inputs import default_input_size
from dealias.models.names import OWN, split_name
from dealias.optional import require


def create_model(
    name: str,
    *,
    antialias: bool = False,
    method: str = "blur",
    filter: Filter = "bin4",
    recipe: str = "same-size",
    num_classes: int | None = None,
    in_chans: int | None = None,
    weights: str | PathLike[str] | None = None,
    new_head: bool = False,
    **model_kwargs: Any,
) -> nn.Module:
    """Build a network by name, with random weights or those of a local checkpoint, anti-aliased on request.

    >>> create_model("dealias:vgg13_bn_cifar", padding_mode="circular")(torch.rand(1, 3, 32, 32)).shape
    torch.Size([1, 10])

    Args:
        name: "torchvision:NAME" (classification networks), "timm:NAME" or "dealias:NAME", which `list_models()` lists,
            or "package.module:factory", a function that returns the network.
        antialias: anti-alias the network, traced at its own input size, with `dealias.antialias`.
        method, filter, recipe: of the anti-aliasing; see `dealias.antialias`.
        num_classes: number of logits; None keeps the network's own.
        in_chans: channels of the input; None keeps the network's own.
        weights: path of a checkpoint, of the baseline or of the anti-aliased network; see `load_weights`.
        new_head: load a checkpoint with another number of classes without its head; see `load_weights`.
        model_kwargs: further arguments of the network's constructor.

    Raises:
        InputError: the name is unknown, the checkpoint cannot be read or does not fit, or an argument is out of range.
        MissingExtraError: torchvision or timm is not installed.
    """
    numbers = {"num_classes": num_classes, "in_chans": in_chans}
    settings = {key: value for key, value in numbers.items() if value is not None}
    for argument, value in settings.items():
        as_int(argument, value, bits=31)
    check_flag("antialias", antialias)
    check_flag("new_head", new_head)
    if new_head and weights is None:
        raise InputError("new_head=True changes nothing without a checkpoint: give weights too")
    source, arch = split_name(name)
    arguments = {**model_kwargs, **settings}
    with users_code(f"model={name!r} cannot be built"):
        if source == "torchvision":
            model = _create_torchvision(arch, in_chans, arguments)
        elif source == "timm":
            model = require("timm").create_model(arch, pretrained=False, **arguments)
        else:
            model = _call(name, OWN[arch] if source == "dealias" else _import_factory(source, arch), arguments)
    if antialias:
        channels, height, width = default_input_size(name, model)
        example = torch.zeros(1, in_chans or channels, height, width)
        model = convert(model, example, method=method, filter=filter, recipe=recipe)
    if weights is not None:
        load_weights(model, weights, new_head=new_head)
    return model


def _create_torchvision(arch: str, in_chans: int | None, model_kwargs: dict[str, Any]) -> nn.Module:
    model_kwargs.pop("in_chans", None)
    if arch in ("googlenet", "inception_v3"):
        model_kwargs.setdefault("init_weights", True)  # torchvision warns without it
    model: nn.Module = require("torchvision").models.get_model(arch, weights=None, **model_kwargs)
    if in_chans is not None:
        _replace_first_conv(model, in_chans)
    return model


def _replace_first_conv(model: nn.Module, in_chans: int) -> None:
    conv = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    if conv.in_channels == in_chans:
        return
    # torchvision scales initial weights by the number of outputs, which stays
    weight = torch.randn(conv.out_channels, in_chans, *conv.kernel_size) * conv.weight.detach().std()
    conv.in_channels, conv.weight = in_chans, nn.Parameter(weight)


def _import_factory(module: str, attribute: str) -> Callable[..., object]:
    name = f"{module}:{attribute}"
    sources = "a source is torchvision, timm, dealias or a Python module"
    with users_code(f"model={name!r} cannot be imported ({sources})"):
        factory: object = import_module(module)
    for part in attribute.split("."):
        if not hasattr(factory, part):
            raise InputError(f"model={name!r} is unknown: {module} has no {attribute}")
        factory = getattr(factory, part)
    if not callable(factory):
        raise InputError(f"model={name!r} is a {type(factory).__name__}: expected a function that returns a network")
    return factory


def _call(name: str, factory: Callable[..., object], arguments: dict[str, Any]) -> nn.Module:
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        raise InputTypeError(f"model={name!r} does not take these arguments: {error}") from None
    model = factory(**arguments)
    if not isinstance(model, nn.Module):
        raise InputTypeError(f"model={name!r} returned a {type(model).__name__}, expected a torch.nn.Module")
    return model
