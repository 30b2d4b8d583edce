"""Local checkpoints: state dicts from safetensors and PyTorch files, and the paper's released networks."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from dealias.errors import InputError, require
from dealias.nn import BlurPool2d, MaxBlurPool2d

_WRAPPERS = ("state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.")
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
# What unpickling arbitrary bytes raises.
_NO_CHECKPOINT = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
)


def read_state_dict(path: str | PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by their names in the model, on the CPU.

    Reads `.safetensors` and what `torch.save` wrote (`.pth`, `.pt`, `.pth.tar`, ...) with `weights_only=True`. Takes
    the state dict out of `{"state_dict": ...}`, `{"model": ...}` or `{"model_state_dict": ...}`, and the prefixes of
    DataParallel and torch.compile off the names.

    Raises:
        InputError: the file cannot be read or holds no state dict.
    """
    if not Path(path).is_file():
        raise InputError(f"weights={str(path)!r} is no file: give the path of a .safetensors or .pth checkpoint")
    try:
        content = _read(Path(path))
    except OSError as error:
        raise InputError(f"weights={str(path)!r} cannot be read: {error.strerror or error}") from None
    for _ in range(2):  # training scripts wrap {"model": {"state_dict": ...}} at most
        wrapped = [
            content[key] for key in _WRAPPERS if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)
        ]
        content = wrapped[0] if wrapped else content
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(value, Tensor) for value in content.values())
    ):
        raise InputError(
            f"weights={str(path)!r} holds no state dict: expected tensors by name, "
            f"or such a dict under {' or '.join(map(repr, _WRAPPERS))}"
        )
    return {_plain_name(str(key)): value for key, value in content.items()}


def _read(path: Path) -> object:
    if path.suffix == ".safetensors":
        safetensors = require("safetensors.torch", "zoo")
        try:
            tensors: dict[str, Tensor] = safetensors.load_file(path)
        except require("safetensors", "zoo").SafetensorError as error:
            raise InputError(f"weights={str(path)!r} is no safetensors file: {error}") from None
        return tensors
    try:
        # warnings tell of odd files; what follows from them is said below
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            return torch.load(path, map_location="cpu", weights_only=True)
    except _NO_CHECKPOINT as error:
        if "weights_only" in str(error) or "Weights only" in str(error):
            reason = "it holds objects other than tensors and plain containers; save model.state_dict() alone"
        else:
            reason = "torch.load cannot read it"
        raise InputError(f"weights={str(path)!r} is no checkpoint: {reason}") from None


def _plain_name(key: str) -> str:
    while key.startswith(_PREFIXES):
        key = key.partition(".")[2]
    return _OLD_DENSENET.sub(r"\1\2.", key)  # as torchvision's own DenseNet files name them


def load_weights(model: nn.Module, path: str | PathLike[str]) -> None:
    """Load a local checkpoint into `model`, every tensor of it; see `read_state_dict` for the files that are read.

    A file of the paper's released networks is recognised by its `.filt` buffers and loaded by `load_zhang_checkpoint`.

    Raises:
        InputError: the file is no checkpoint, or does not fit: the message names the first missing and unexpected keys
            and the shapes that differ.
    """
    stored = read_state_dict(path)
    if any(key.endswith(".filt") for key in stored):
        _load_zhang(model, stored, path)
        return
    own = model.state_dict()
    # PyTorch before 0.4.1 did not store num_batches_tracked; load_state_dict keeps the model's then
    missing = [key for key in own if key not in stored and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in stored if key not in own]
    differing = [
        f"{key} is {tuple(stored[key].shape)} in the file and {tuple(own[key].shape)} in the model"
        for key in own
        if key in stored and stored[key].shape != own[key].shape
    ]
    counts = (("missing key", missing), ("unexpected key", unexpected), ("shape mismatch", differing))
    problems = [_first_few(what, items) for what, items in counts if items]
    if problems:
        raise InputError(f"weights={str(path)!r} does not fit {type(model).__name__}: {'; '.join(problems)}")
    model.load_state_dict(stored)


def _first_few(what: str, items: list[str]) -> str:
    plural = "" if len(items) == 1 else "es" if what.endswith("h") else "s"
    more = ", ..." if len(items) > 3 else ""
    return f"{len(items)} {what}{plural} ({', '.join(items[:3])}{more})"


def load_zhang_checkpoint(model: nn.Module, path: str | PathLike[str]) -> None:
    """Load one of the paper's released `*_lpfK*.pth` files into a torchvision network.

    The released networks hold their filters as `.filt` buffers and their blurs as numbered layers, which shifts the
    numbers of the layers behind: `layer2.0.conv3.1.weight` is torchvision's `layer2.0.conv3.weight`. Both list the same
    layers in the same order, so they are matched by position, and names (but for numbers) and shapes have to agree.

    To compute what the released network does, `model` has to be anti-aliased, before or after, with the filter of K
    taps and `recipe="zhang2019"`.

    Raises:
        InputError: the file is no checkpoint, is of another architecture, or `model` has another filter.
    """
    _load_zhang(model, read_state_dict(path), path)


def _load_zhang(model: nn.Module, stored: dict[str, Tensor], path: str | PathLike[str]) -> None:
    _check_filters(model, stored, path)
    own = model.state_dict()
    layers = {key: value for key, value in stored.items() if not key.endswith(".filt")}
    if not any(key.endswith("num_batches_tracked") for key in layers):
        own = {key: value for key, value in own.items() if not key.endswith("num_batches_tracked")}
    if len(layers) != len(own):
        raise InputError(
            f"weights={str(path)!r} does not fit {type(model).__name__}: "
            f"it has {len(layers)} tensors beside the filters, the model {len(own)}"
        )
    for (theirs, value), (ours, target) in zip(layers.items(), own.items(), strict=True):
        if _words(theirs) != _words(ours) or value.shape != target.shape:
            raise InputError(
                f"weights={str(path)!r} does not fit {type(model).__name__}: {theirs} {tuple(value.shape)} in the file "
                f"stands where {ours} {tuple(target.shape)} does in the model"
            )
    model.load_state_dict(dict(zip(own, layers.values(), strict=True)), strict=len(own) == len(model.state_dict()))


def _check_filters(model: nn.Module, stored: Mapping[str, Tensor], path: str | PathLike[str]) -> None:
    """A checkpoint trained with one filter computes something else with another; a baseline model has none yet."""
    theirs = {value.shape[-1] for key, value in stored.items() if key.endswith(".filt")}
    ours = {len(module.taps) for module in model.modules() if isinstance(module, BlurPool2d | MaxBlurPool2d)}
    if theirs and ours and theirs != ours:
        raise InputError(
            f"weights={str(path)!r} has filters of {_listed(theirs)} taps, the model of {_listed(ours)}: "
            f"anti-alias it with filter={max(theirs)}"
        )


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def _words(key: str) -> list[str]:
    """The name without numbers: what inserted layers leave alone."""
    return [word for part in key.split(".") if (word := part.rstrip("0123456789"))]
