"""Load local checkpoints: safetensors and PyTorch files, and the paper's released networks."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from dealias.errors import InputError, check_kind, printable
from dealias.functional import per_axis
from dealias.nn import BlurPool2d, MaxBlurPool2d
from dealias.optional import require

# The moving average of the weights comes first, as in timm: training runs that have one evaluate it.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.")
_FILTER = ".filt"  # the filters of the paper's released networks
_AVERAGED = "n_averaged"  # the counter beside the weights of torch.optim.swa_utils.AveragedModel
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
_MAGIC = {
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89PNG": "a PNG picture",
    b"PK\x03\x04": "a zip archive that torch.save did not write",
    b"\x80": "a pickle of other objects",
    b"\x1f\x8b": "a gzip file",
    b"\x89HDF": "an HDF5 file, as Keras writes",
    b"%PDF": "a PDF",
    b"<": "a page of HTML or XML, as a download that failed",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself with git lfs pull",
    b"": "empty",
}


def read_state_dict(path: str | PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by their names in the model, on the CPU.

    The file is a `.safetensors` file or was written by `torch.save` (`.pth`, `.pt`, `.pth.tar`, ...), which is read
    with `weights_only=True`. The state dict may stand under "state_dict", "model" or "model_state_dict". Moving
    averages of the weights, under "state_dict_ema" or "model_ema", are read in place of the weights, as in timm. The
    names lose the prefixes of DataParallel and torch.compile.

    Raises:
        InputError: the file cannot be read or has no state dict.
    """
    check_kind("weights", path, (str, PathLike), "a path")
    if not Path(path).is_file():
        raise InputError(f"weights={str(path)!r} is not a file: give the path of a .safetensors or .pth checkpoint")
    content = _read(Path(path))
    for _ in range(2):  # training scripts wrap {"model": {"state_dict": ...}} at most
        if isinstance(content, Mapping):
            content = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
    if not (isinstance(content, Mapping) and content and all(isinstance(each, Tensor) for each in content.values())):
        raise InputError(
            f"weights={str(path)!r} has no state dict: expected tensors by name, "
            f"or such a dict under {' or '.join(map(repr, _WRAPPERS))}"
        )
    return {_plain_name(str(key)): value for key, value in content.items() if key != _AVERAGED}


def checkpoint_content(tensors: Mapping[str, Tensor], **metadata: str) -> bytes:
    """The content of a .safetensors file. Tensors that share memory are stored one by one."""
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    content: bytes = require("safetensors.torch").save(own, {"format": "pt", **metadata})
    return content


def _read(path: Path) -> object:
    safetensors = require("safetensors.torch") if path.suffix == ".safetensors" else None
    try:
        if safetensors is not None:
            return safetensors.load_file(path)
        with warnings.catch_warnings():
            # PyTorch warns of odd files; the error below names the cause
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"weights={str(path)!r} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # reading arbitrary bytes raises almost anything
        if safetensors is not None:
            reason = f"safetensors cannot read it ({error})"
        elif "weights_only" in str(error) or "Weights only" in str(error):
            reason = "it has objects other than tensors and plain containers; save model.state_dict() alone"
        else:
            reason = "torch.load cannot read it"
        raise InputError(f"weights={str(path)!r} is not a checkpoint: {reason}{_kind_of(path)}") from None


def _kind_of(path: Path) -> str:
    """What the first bytes of a file show it to be, in words behind a message; nothing where they show nothing."""
    with open(path, "rb") as file:
        start = file.read(64)
    if start[8:10] == b'{"':
        return "; it is a safetensors file: name it .safetensors"
    return next(
        (f"; it is {kind}" for magic, kind in _MAGIC.items() if start.startswith(magic) and (magic or not start)), ""
    )


def _plain_name(key: str) -> str:
    while key.startswith(_PREFIXES):
        key = key.partition(".")[2]
    return _OLD_DENSENET.sub(r"\1\2.", key)  # torchvision's own DenseNet files have the old names


def load_weights(model: nn.Module, path: str | PathLike[str], *, new_head: bool = False) -> None:
    """Load every tensor of a local checkpoint into `model`; `read_state_dict` says which files are read.

    Files of the paper's released networks, recognised by their `.filt` buffers, are loaded as by
    `load_zhang_checkpoint`. The wrappers of DataParallel and torch.compile are taken out of the names wherever they
    stand (`features.module.0.weight`), unless the model has such names itself.

    Args:
        new_head: load a checkpoint with another number of classes without the tensors that depend on this number; the
            model keeps its own values of these.

    Warns:
        UserWarning: the tensors that `new_head` left out.

    Raises:
        InputError: the file is not a checkpoint, or does not fit: the message names the first missing and unexpected
            keys and the shapes that differ.
    """
    check_kind("model", model, nn.Module, "a torch.nn.Module")
    stored = _unwrapped(model, read_state_dict(path))
    if any(key.endswith(_FILTER) for key in stored):
        _load_zhang(model, stored, path, new_head)
    else:
        _load(model, stored, path, {}, new_head)


def _unwrapped(model: nn.Module, stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """`stored` with its names freed of wrappers, unless the model has such names or two names become equal."""
    wrappers = {prefix.rstrip(".") for prefix in _PREFIXES}
    if any(not wrappers.isdisjoint(key.split(".")) for key in model.state_dict()):
        return stored
    plain = {".".join(part for part in key.split(".") if part not in wrappers): stored[key] for key in stored}
    return plain if len(plain) == len(stored) else stored


def _load(
    model: nn.Module,
    stored: Mapping[str, Tensor],
    path: str | PathLike[str],
    written: Mapping[str, str],
    new_head: bool,
) -> None:
    """Load all of `stored` or nothing; `written` maps the model's names to the file's where they differ."""
    own = model.state_dict()
    shapes = {key: (stored[key].shape, own[key].shape) for key in own if key in stored}
    differing = {key: (theirs, ours) for key, (theirs, ours) in shapes.items() if theirs != ours}
    classes = _classes([*differing.values()])
    if new_head and classes is not None:
        left_out = ", ".join(differing)
        warnings.warn(f"weights={str(path)!r} has {classes} classes: {left_out} are not loaded", stacklevel=4)
        stored, differing = {**stored, **{key: own[key] for key in differing}}, {}
    _check_values(own, stored, path)
    # files of PyTorch before 0.4.1 have no num_batches_tracked; load_state_dict keeps the model's
    missing = [key for key in own if key not in stored and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in stored if key not in own]
    mismatches = [
        f"{written.get(key, key)} is {tuple(theirs)} in the file and {tuple(ours)} in the model"
        for key, (theirs, ours) in differing.items()
    ]
    counts = (("missing key", missing), ("unexpected key", unexpected), ("shape mismatch", mismatches))
    problems = [_first_few(what, items) for what, items in counts if items]
    if problems:
        cure = "" if missing or unexpected else _cure(differing)
        raise InputError(f"weights={str(path)!r} does not fit {type(model).__name__}: {'; '.join(problems)}{cure}")
    model.load_state_dict(stored, strict=len(stored) == len(own))


def _check_values(own: Mapping[str, Tensor], stored: Mapping[str, Tensor], path: str | PathLike[str]) -> None:
    """Refuse tensors that `load_state_dict` would convert without a word, and those that are not numbers."""
    for key in own.keys() & stored.keys():
        theirs, ours = stored[key], own[key]
        kind = None
        if theirs.layout != torch.strided or theirs.is_quantized:
            kind = "quantised" if theirs.is_quantized else str(theirs.layout).removeprefix("torch.")
        elif ours.is_floating_point() != theirs.is_floating_point() or ours.is_complex() != theirs.is_complex():
            kind = str(theirs.dtype).removeprefix("torch.")
        elif theirs.is_floating_point() and bool(theirs.float().isnan().any()):
            kind = "NaN"
        if kind is not None:
            raise InputError(
                f"weights={str(path)!r} has {kind} values in {printable(key)}, expected {ours.dtype} without NaN: "
                "save the state_dict of the trained float model"
            )


def _cure(differing: Mapping[str, tuple[torch.Size, torch.Size]]) -> str:
    """Advice on the argument of `create_model` that makes the shapes agree; empty where none does."""
    shapes = list(differing.values())
    if (classes := _classes(shapes)) is not None:
        return (
            f": pass new_head=True (to a command --new-head, or new_head=true beside weights=PATH) to load all but "
            f"{_first_few('tensor', list(differing))}, or build the model with num_classes={classes}"
        )
    theirs, ours = shapes[0]
    is_first_conv = len(shapes) == 1 and len(theirs) > 2 and (theirs[0], theirs[2:]) == (ours[0], ours[2:])
    return f": build the model with in_chans={theirs[1]}" if is_first_conv else ""


def _classes(shapes: list[tuple[torch.Size, torch.Size]]) -> int | None:
    """The checkpoint's number of classes if the shapes of file and model differ in this number alone, else None."""
    numbers = {(theirs[:1], ours[:1]) for theirs, ours in shapes}
    if len(numbers) == 1 and all(theirs and ours and theirs[1:] == ours[1:] for theirs, ours in shapes):
        return shapes[0][0][0]
    return None


def _first_few(what: str, items: list[str]) -> str:
    items = [printable(item) for item in items]
    plural = "" if len(items) == 1 else "es" if what.endswith("h") else "s"
    more = ", ..." if len(items) > 3 else ""
    return f"{len(items)} {what}{plural} ({', '.join(items[:3])}{more})"


def load_zhang_checkpoint(model: nn.Module, path: str | PathLike[str]) -> None:
    """Load one of the paper's released `*_lpfK*.pth` files into a torchvision network.

    The released networks have their filters as `.filt` buffers and their blurs as numbered layers, so that later layers
    have other numbers: `layer2.0.conv3.1.weight` is torchvision's `layer2.0.conv3.weight`. The layers have the same
    order in both and are matched by it; shapes, and names without the numbers, have to agree.

    The model computes the same as the released network if it is anti-aliased, before or after loading, with the filter
    of K taps and `recipe="zhang2019"`.

    Raises:
        InputError: the file is not a checkpoint or is of another architecture, or `model` has another filter.

    Warns:
        UserWarning: `model` is anti-aliased in another way than the released network.
    """
    check_kind("model", model, nn.Module, "a torch.nn.Module")
    _load_zhang(model, _unwrapped(model, read_state_dict(path)), path, new_head=False)


def _load_zhang(model: nn.Module, stored: Mapping[str, Tensor], path: str | PathLike[str], new_head: bool) -> None:
    filters = {key: value for key, value in stored.items() if key.endswith(_FILTER)}
    blurs = [module for module in model.modules() if isinstance(module, BlurPool2d | MaxBlurPool2d)]
    _check_filters(filters, blurs, path)
    # safetensors does not keep the order of the names
    theirs = sorted(stored.keys() - filters.keys(), key=_by_numbers)
    ours = sorted(model.state_dict(), key=_by_numbers)
    if not any(key.endswith("num_batches_tracked") for key in theirs):
        ours = [key for key in ours if not key.endswith("num_batches_tracked")]
    problem = f"weights={str(path)!r} does not fit {type(model).__name__}"
    known = {_words(key) for key in ours}
    if unknown := [key for key in theirs if _words(key) not in known]:
        raise InputError(f"{problem}: {_first_few('unexpected key', unknown)}")
    for their_key, our_key in zip(theirs, ours, strict=False):
        if _words(their_key) != _words(our_key):
            raise InputError(
                f"{problem}: {their_key} {tuple(stored[their_key].shape)} in the file stands where {our_key} "
                f"{tuple(model.state_dict()[our_key].shape)} does in the model"
            )
    if len(theirs) != len(ours):
        raise InputError(f"{problem}: it has {len(theirs)} tensors beside the filters, the model {len(ours)}")
    written = dict(zip(ours, theirs, strict=True))
    _load(model, {key: stored[name] for key, name in written.items()}, path, written, new_head)
    _warn_of_differences(model, filters, blurs)


def _check_filters(
    filters: Mapping[str, Tensor], blurs: Sequence[BlurPool2d | MaxBlurPool2d], path: str | PathLike[str]
) -> None:
    """Raise where the model blurs with another filter than the checkpoint; a baseline model does not blur yet."""
    for key, theirs in filters.items():
        for vertical, horizontal in {blur.taps for blur in blurs}:
            ours = torch.outer(torch.tensor(vertical), torch.tensor(horizontal))
            if theirs.shape[-2:] != ours.shape or not torch.allclose(theirs.float(), ours, rtol=0.01):
                size = theirs.shape[-1] if theirs.ndim else 0
                kind = "filters" if size != len(horizontal) else "other filters"
                raise InputError(
                    f"weights={str(path)!r} has {kind} of {size} taps ({key}), the model of {len(horizontal)}: "
                    f"anti-alias it with filter={size}"
                )


def _warn_of_differences(
    model: nn.Module, filters: Mapping[str, Tensor], blurs: Sequence[BlurPool2d | MaxBlurPool2d]
) -> None:
    """Warn where an anti-aliased model differs from the released network."""
    if not filters or not blurs:
        return
    differences = []
    if len(blurs) != len(filters):
        differences.append(f"it blurs in {len(blurs)} places, the released network in {len(filters)}")
    if borders := sorted({blur.padding_mode for blur in blurs} - {"reflect"}):
        differences.append(f"its blurs have padding_mode={borders[0]!r}, the released network's 'reflect'")
    stem = getattr(model, "maxpool", None)  # of a ResNet
    if isinstance(stem, MaxBlurPool2d) and (window := per_axis("kernel_size", stem.kernel_size, 2, 1)) != (2, 2):
        differences.append(f"its stem pools over {window} pixels, the released network's over (2, 2)")
    if differences:
        warnings.warn(
            f"the {type(model).__name__} has the weights of the released network but computes something else: "
            f"{'; '.join(differences)}. recipe='zhang2019' with the other arguments left as they are computes the same",
            stacklevel=4,
        )


def _by_numbers(key: str) -> list[tuple[int, str]]:
    """A sort key that puts layer 10 after layer 9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in key.split(".")]


def _words(key: str) -> tuple[str, ...]:
    """The parts of a name that are not numbers of layers, which inserted layers do not change."""
    return tuple(part for part in key.split(".") if not part.isdecimal())
