"""Networks by name: torchvision's, timm's, dealias's own and any importable factory.

>>> create_model("dealias:vgg_small", num_classes=7)(torch.rand(1, 1, 32, 32)).shape
torch.Size([1, 7])
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib import import_module
from os import PathLike
from typing import Any

import torch
from torch import nn

from dealias.convert import antialias as convert
from dealias.errors import InputError, InputTypeError, MissingExtraError
from dealias.filters import Filter
from dealias.models._torchvision import import_beside_torchvision, import_torchvision
from dealias.models.checkpoints import load_weights
from dealias.models.imagenet import IMAGENET_MEAN, IMAGENET_STD
from dealias.models.vgg import vgg13_bn_cifar, vgg_small

_OWN: dict[str, Callable[..., nn.Module]] = {"vgg13_bn_cifar": vgg13_bn_cifar, "vgg_small": vgg_small}
_SOURCES = ("dealias", "timm", "torchvision")


def is_listed(name: str) -> bool:
    """Whether `create_model` builds the name itself, and knows its input, where it would else import a factory."""
    return name.partition(":")[0] in _SOURCES


def create_model(
    name: str,
    *,
    antialias: bool = False,
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
        name: "torchvision:NAME" (classification networks), "timm:NAME", "dealias:NAME" or "package.module:factory", a
            function that returns the network. `list_models()` lists the first three.
        antialias: return `dealias.antialias(model, ...)`, traced at the network's own input size.
        filter, recipe: of the anti-aliasing; see `dealias.antialias`.
        num_classes: number of logits; None keeps the network's own.
        in_chans: channels of the input; None keeps the network's own.
        weights: path of a checkpoint; see `load_weights`. It loads into the network whether anti-aliased or not.
        new_head: keep the network's own head where the checkpoint has another number of classes; see `load_weights`.
        model_kwargs: further arguments of the network's constructor.

    Raises:
        InputError: the name is unknown, the checkpoint is none or does not fit, an argument is out of range.
        MissingExtraError: torchvision or timm is not installed.
    """
    for argument, value in (("num_classes", num_classes), ("in_chans", in_chans)):
        if value is not None and value < 1:
            raise InputError(f"{argument}={value!r} is too small: it must be at least 1")
    if new_head and weights is None:
        raise InputError("new_head=True changes nothing without a checkpoint: give weights too")
    source, arch = _split(name)
    settings = {
        key: value for key, value in (("num_classes", num_classes), ("in_chans", in_chans)) if value is not None
    }
    if source == "torchvision":
        model = _create_torchvision(arch, in_chans, {**model_kwargs, **settings})
    elif source == "timm":
        timm = import_beside_torchvision("timm", "zoo")
        model = timm.create_model(arch, pretrained=False, **settings, **model_kwargs)
    elif source == "dealias":
        model = _call(name, _OWN[arch], {**model_kwargs, **settings})
    else:
        model = _call(name, _import_factory(source, arch), {**model_kwargs, **settings})
    if antialias:
        channels, height, width = default_input_size(name if source in _SOURCES else model)
        example = torch.zeros(1, in_chans or channels, height, width)
        model = convert(model, example, filter=filter, recipe=recipe)
    if weights is not None:
        load_weights(model, weights, new_head=new_head)
    return model


def list_models(pattern: str = "*") -> list[str]:
    """The names that `create_model` knows and match `pattern`, sorted.

    >>> list_models("dealias:*")
    ['dealias:vgg13_bn_cifar', 'dealias:vgg_small']
    >>> list_models("_cifar")
    ['dealias:vgg13_bn_cifar']

    A `pattern` with `*`, `?` or `[` is a shell's, for the whole name with or without its source; any other is a part of
    the name. Upper and lower case are the same. A library that is not installed has none.
    """
    names: list[str] = []
    for source in _SOURCES:
        try:
            names += [f"{source}:{arch}" for arch in _architectures(source)]
        except MissingExtraError:
            continue
    shell_pattern = f"*{pattern}*"
    if any(sign in pattern for sign in "*?["):
        shell_pattern = pattern if ":" in pattern else f"*:{pattern}"
    return sorted(name for name in names if fnmatchcase(name.lower(), shell_pattern.lower()))


def default_input_size(model: str | nn.Module) -> tuple[int, int, int]:
    """Channels, height and width of the images that a network is made for.

    >>> default_input_size("dealias:vgg_small")
    (1, 32, 32)

    Args:
        model: a name as in `create_model`, or a network: timm's know theirs. Any other has (3, 224, 224).

    Raises:
        InputError: the name is unknown.
    """
    if isinstance(model, str):
        source, arch = _split(model)
        if source == "dealias":
            return (1 if arch == "vgg_small" else 3), 32, 32
        if source == "torchvision":
            return (3, 299, 299) if arch == "inception_v3" else (3, 224, 224)
    channels, height, width = _timm_config(model).get("input_size", (3, 224, 224))
    return channels, height, width


def default_normalization(model: str | nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation, for each channel, by which a network expects images in [0, 1] normalised.

    >>> default_normalization("dealias:vgg_small")
    ((0.0,), (1.0,))

    ImageNet's, but for timm's networks, which know theirs, and dealias's own, which take [0, 1] as it is.

    Raises:
        InputError: the name is unknown.
    """
    if isinstance(model, str) and _split(model)[0] == "dealias":
        channels = default_input_size(model)[0]
        return (0.0,) * channels, (1.0,) * channels
    config = _timm_config(model)
    return tuple(config.get("mean", IMAGENET_MEAN)), tuple(config.get("std", IMAGENET_STD))


def _timm_config(model: str | nn.Module) -> dict[str, Any]:
    """timm's description of a network's input; empty for the others."""
    if isinstance(model, str):
        source, arch = _split(model)
        if source != "timm":
            return {}
        return _timm_config_of(arch)
    found = getattr(model, "pretrained_cfg", None)
    return found if isinstance(found, dict) else {}


def _timm_config_of(arch: str) -> dict[str, Any]:
    try:
        config = import_beside_torchvision("timm", "zoo").get_pretrained_cfg(arch)
    except RuntimeError as error:
        raise InputError(f"model={'timm:' + arch!r} is unknown: {error}") from None
    return config.to_dict() if config is not None else {}


def _split(name: str) -> tuple[str, str]:
    """Source and architecture of a model's name; an unknown one raises with what comes close."""
    if not isinstance(name, str):
        raise InputTypeError(f"model must be a name such as 'torchvision:resnet50', got {type(name).__name__}")
    source, colon, arch = name.partition(":")
    if not colon or not source or not arch:
        named = [known for known in list_models() if known.partition(":")[2] == name]
        hint = f": did you mean {' or '.join(named)}?" if named else ""
        raise InputError(
            f"model={name!r} has no source"
            + (hint or f": use {', '.join(f'{known}:NAME' for known in _SOURCES)} or package.module:factory")
        )
    if source in _SOURCES:
        known = _architectures(source)
        # timm appends the tag of a set of weights: resnet50.a1_in1k
        if (arch.partition(".")[0] if source == "timm" else arch) not in known:
            close = get_close_matches(arch, known, n=3)
            hint = f"did you mean {' or '.join(f'{source}:{match}' for match in close)}?"
            everything = f"dealias.models.list_models('{source}:*') lists them"
            raise InputError(f"model={name!r} is unknown: {hint if close else everything}")
        if source == "timm":
            _timm_config_of(arch)  # an unknown tag raises
    return source, arch


def _architectures(source: str) -> list[str]:
    if source == "dealias":
        return list(_OWN)
    if source == "timm":
        return list(import_beside_torchvision("timm", "zoo").list_models())
    models = import_torchvision().models
    return list(models.list_models(module=models))


def _create_torchvision(arch: str, in_chans: int | None, model_kwargs: dict[str, Any]) -> nn.Module:
    model_kwargs.pop("in_chans", None)
    if arch in ("googlenet", "inception_v3"):
        model_kwargs.setdefault("init_weights", True)  # else torchvision warns that the default will change
    model: nn.Module = import_torchvision().models.get_model(arch, weights=None, **model_kwargs)
    if in_chans is not None:
        _replace_first_conv(model, in_chans)
    return model


def _replace_first_conv(model: nn.Module, in_chans: int) -> None:
    conv = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    if conv.in_channels == in_chans:
        return
    # torchvision scales its initial weights by the outputs, which stay the same
    weight = torch.randn(conv.out_channels, in_chans, *conv.kernel_size) * conv.weight.detach().std()
    conv.in_channels, conv.weight = in_chans, nn.Parameter(weight)


def _import_factory(module: str, attribute: str) -> Callable[..., object]:
    name = f"{module}:{attribute}"
    try:
        found: object = import_module(module)
    except ImportError as error:
        raise InputError(
            f"model={name!r} cannot be imported: {error} (a source is torchvision, timm, dealias or a Python module)"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise InputError(f"model={name!r} is unknown: {module} has no {attribute}")
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"model={name!r} is no factory: it is a {type(found).__name__}, expected a function")
    return found


def _call(name: str, factory: Callable[..., object], arguments: dict[str, Any]) -> nn.Module:
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        raise InputTypeError(f"model={name!r} does not take these arguments: {error}") from None
    model = factory(**arguments)
    if not isinstance(model, nn.Module):
        raise InputTypeError(f"model={name!r} returned a {type(model).__name__}, expected a torch.nn.Module")
    return model
