"""The names of networks: "torchvision:NAME", "timm:NAME", "dealias:NAME" and "package.module:factory"."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from dealias.errors import InputError, MissingExtraError, check_kind
from dealias.models.vgg import vgg13_bn_cifar, vgg_small
from dealias.optional import require

OWN: dict[str, Callable[..., nn.Module]] = {"vgg13_bn_cifar": vgg13_bn_cifar, "vgg_small": vgg_small}
_SOURCES = ("dealias", "timm", "torchvision")


def is_listed(name: str) -> bool:
    """Whether a library lists the name; any other is that of a factory, which `create_model` imports."""
    return name.partition(":")[0] in _SOURCES


def list_models(pattern: str = "*") -> list[str]:
    """The names of networks that match `pattern`, sorted.

    >>> list_models("dealias:*")
    ['dealias:vgg13_bn_cifar', 'dealias:vgg_small']
    >>> list_models("_cifar")
    ['dealias:vgg13_bn_cifar']

    A `pattern` with `*`, `?` or `[` is a shell pattern for the whole name, with or without its source; any other is a
    part of the name. Case does not matter. A library that is not installed lists no names.
    """
    check_kind("pattern", pattern, str, "a text")
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


def split_name(name: str) -> tuple[str, str]:
    """The source and the architecture of a network's name.

    Raises:
        InputError: the name is unknown; the message gives similar names.
        MissingExtraError: torchvision or timm is not installed.
    """
    check_kind("model", name, str, "a name such as 'torchvision:resnet50'")
    source, colon, arch = name.partition(":")
    if not colon or not source or not arch:
        named = [known for known in list_models() if known.partition(":")[2] == name]
        hint = f"use {', '.join(f'{known}:NAME' for known in _SOURCES)} or package.module:factory"
        if named:
            hint = f"did you mean {' or '.join(named)}?"
        raise InputError(f"model={name!r} has no source: {hint}")
    if source in _SOURCES:
        known = _architectures(source)
        # timm's names may end in the tag of their weights: resnet50.a1_in1k
        if (arch.partition(".")[0] if source == "timm" else arch) not in known:
            close = get_close_matches(arch, known, n=3)
            hint = f"did you mean {' or '.join(f'{source}:{match}' for match in close)}?"
            everything = f"dealias.models.list_models('{source}:*') lists them"
            raise InputError(f"model={name!r} is unknown: {hint if close else everything}")
        if source == "timm":
            timm_config(arch)  # raises for an unknown tag
    return source, arch


def _architectures(source: str) -> list[str]:
    if source == "dealias":
        return list(OWN)
    if source == "timm":
        return list(require("timm").list_models())
    models = require("torchvision").models
    return list(models.list_models(module=models))


def timm_config(arch: str) -> dict[str, Any]:
    """timm's description of a network's input.

    Raises:
        InputError: timm does not know the tag of the weights.
    """
    try:
        config = require("timm").get_pretrained_cfg(arch)
    except RuntimeError as error:
        raise InputError(f"model={'timm:' + arch!r} is unknown: {error}") from None
    return config.to_dict() if config is not None else {}
