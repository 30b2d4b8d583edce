"""Recipes: the settings of a training, by name, as YAML files inside the package.

>>> settings = load_recipe("zhang2019-imagenet", model="torchvision:vgg16_bn", overrides={"epochs": 2})
>>> settings.learning_rate, settings.epochs, settings.schedule
(0.05, 2, 'step')
>>> recipe_names()
['cifar-vgg', 'digits', 'zhang2019-finetune', 'zhang2019-imagenet']
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dealias.errors import InputError
from dealias.optional import require


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a network is trained.

    Attributes:
        epochs: passes over the images.
        batch_size: images in a step, over all processes. An epoch is cut into the fewest batches of at most so many
            whose sizes differ by one at most: no image is left out or comes twice.
        optimizer: as `timm.optim.create_optimizer_v2` calls it: `momentum` is SGD, `sgd` SGD with Nesterov momentum.
        learning_rate: the highest of the schedule, for `batch_size` images.
        schedule: `step` (times `decay_rate` every `decay_epochs` epochs, or after each of a list of them), `cosine` (to
            0), `one-cycle` or `constant`.
        warmup_epochs: of linear warm-up in front of `step`, `cosine` or `constant`.
        momentum, weight_decay: of the optimizer.
        decay_all: decay biases and normalisations too, as the paper does.
        label_smoothing: of the cross entropy.
        clip_grad_norm: of the gradients; None for no clipping.
        shift_augmentation: move images at random: the switch that the paper studies. `crop` says how: `resized` is
            `RandomResizedCrop` with `crop_scale`, `padded` pads by `crop_padding` and crops. Without it, the middle.
        flip: probability of a horizontal flip.
        auto_augment: a policy of timm, such as `rand-m9-mstd0.5`.
        random_erasing: probability of timm's random erasing.
        mixup, cutmix: alpha of torchvision's MixUp and CutMix, chosen from at random where both are above 0.
        ema_decay: of the exponential moving average of the weights, which is then what is measured and published.
        precision: fp32, bf16 or fp16 (autocast).
        channels_last: memory format.
        compile: run `torch.compile`.
        accumulation: parts of a process's batch, for less memory.
        antialias: train the anti-aliased network. `filter`, `antialias_recipe`: see `dealias.antialias`.
        padding_mode: of dealias's own networks.
        num_classes, in_chans: of the network; by default those of the data.
        image_size, crop_size: see `dealias.models.preprocessing_for`.
        consistency_pairs: pairs of shifts of each validation image, after every epoch.
        log_every: steps in a record of the log.
        save_every: seconds after which the state is saved, at most; it is at the end of each epoch too.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: str = "momentum"
    momentum: float = 0.9
    weight_decay: float = 0.0
    decay_all: bool = True
    schedule: Literal["step", "cosine", "one-cycle", "constant"] = "cosine"
    decay_epochs: int | list[int] = 30
    decay_rate: float = 0.1
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    clip_grad_norm: float | None = None
    shift_augmentation: bool = True
    crop: Literal["resized", "padded"] = "resized"
    crop_scale: list[float] | None = None
    crop_padding: int = 4
    flip: float = 0.5
    auto_augment: str | None = None
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    ema_decay: float | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    compile: bool = False
    accumulation: int = 1
    antialias: bool = False
    filter: str = "bin4"
    antialias_recipe: str = "same-size"
    padding_mode: str | None = None
    num_classes: int | None = None
    in_chans: int | None = None
    image_size: int | None = None
    crop_size: int | None = None
    consistency_pairs: int = 1
    log_every: int = 10
    save_every: float = 20.0

    def __post_init__(self) -> None:
        for wanted, (fits, names) in _RANGES.items():
            for name in names:
                value = getattr(self, name)
                values = value if isinstance(value, list) else [value]
                if value is not None and not (values and all(math.isfinite(each) and fits(each) for each in values)):
                    raise InputError(f"{name}={value!r} is out of range: it must be {wanted}")
        if self.crop_scale is not None and (
            len(self.crop_scale) != 2 or not 0 < self.crop_scale[0] <= self.crop_scale[1]
        ):
            raise InputError(
                f"crop_scale={self.crop_scale!r} must be the smallest and the largest share, such as [0.08, 1]"
            )
        if self.schedule == "one-cycle" and self.warmup_epochs:
            raise InputError(
                f"warmup_epochs={self.warmup_epochs!r} does not go with schedule='one-cycle', which warms up"
            )


_TYPES: dict[str, Any] = get_type_hints(Settings)
_RANGES: dict[str, tuple[Callable[[float], bool], tuple[str, ...]]] = {
    "at least 1": (
        lambda value: value >= 1,
        (
            *("epochs", "batch_size", "accumulation", "log_every", "consistency_pairs"),
            *("num_classes", "in_chans", "image_size", "crop_size"),
        ),
    ),
    "above 0": (
        lambda value: value > 0,
        ("learning_rate", "decay_rate", "save_every", "clip_grad_norm", "decay_epochs"),
    ),
    "from 0 to 1": (
        lambda value: 0 <= value <= 1,
        ("label_smoothing", "flip", "random_erasing", "ema_decay", "momentum"),
    ),
    "0 or more": (
        lambda value: value >= 0,
        ("weight_decay", "warmup_epochs", "mixup", "cutmix", "crop_padding"),
    ),
}


def recipe_names() -> list[str]:
    """The recipes that can be named."""
    files = resources.files("dealias.training").joinpath("recipes").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def recipe_text(name: str) -> str:
    """The recipe as it is written: one of `recipe_names()`, or the path of a YAML file.

    Raises:
        InputError: there is none of that name.
    """
    if name.endswith((".yaml", ".yml")):
        try:
            return Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"recipe={name!r} cannot be read: {error}") from None
    if name not in recipe_names():
        raise InputError(f"recipe={name!r} is unknown: use {', '.join(recipe_names())}, or the path of a YAML file")
    return resources.files("dealias.training").joinpath(f"recipes/{name}.yaml").read_text(encoding="utf-8")


def recipe_data(name: str) -> str | None:
    """The data that a recipe brings, if any."""
    brought: list[str | None] = [recipe.get("data") for recipe in _chain(name)]
    return next((data for data in reversed(brought) if data is not None), None)


def load_recipe(
    name: str, *, model: str = "", overrides: Mapping[str, Any] | None = None, scale_learning_rate: float = 1.0
) -> Settings:
    """The settings of a recipe for a network.

    Args:
        name: one of `recipe_names()`, or the path of a YAML file.
        model: the network's name: recipes have variants by architecture.
        overrides: settings that count in place of the recipe's.
        scale_learning_rate: factor of the recipe's learning rate where the recipe itself has none and `overrides` give
            no learning rate.

    Raises:
        InputError: an unknown recipe or key, or a value of the wrong type or range.
    """
    arch = model.partition(":")[2] or model
    values: dict[str, Any] = {"scale_learning_rate": scale_learning_rate}
    for recipe in _chain(name):
        values |= {key: value for key, value in recipe.items() if key not in ("extends", "variants", "data")}
        for pattern, variant in recipe.get("variants", {}).items():
            if fnmatchcase(arch, pattern):
                values |= variant
    fitting, scale = _as(float, values.pop("scale_learning_rate"))
    if not fitting:
        raise InputError(f"recipe={name!r} has scale_learning_rate={scale!r}: expected a number")
    values = {key: _checked(key, value, f"recipe={name!r}") for key, value in values.items()}
    if "learning_rate" in values:
        values["learning_rate"] *= scale
    values |= {key: _checked(key, value, "settings") for key, value in (overrides or {}).items()}
    needed = [field.name for field in fields(Settings) if field.default is MISSING]
    if missing := [key for key in needed if key not in values]:
        raise InputError(f"recipe={name!r} lacks {', '.join(missing)}")
    return Settings(**values)


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """Settings from the command line's KEY=VALUE, with values as YAML writes them.

    >>> parse_overrides(["epochs=3", "decay_epochs=[80, 120]", "ema_decay=null"])
    {'epochs': 3, 'decay_epochs': [80, 120], 'ema_decay': None}
    """
    yaml = require("yaml")
    found = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise InputError(f"set={pair!r} has no value: write KEY=VALUE")
        try:
            found[key.strip()] = _checked(key.strip(), yaml.safe_load(text), "set")
        except yaml.YAMLError:
            raise InputError(f"set={pair!r} has a value that YAML cannot read") from None
    return found


def _read(name: str) -> dict[str, Any]:
    yaml = require("yaml")
    try:
        found = yaml.safe_load(recipe_text(name))
    except yaml.YAMLError as error:
        raise InputError(f"recipe={name!r} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise InputError(f"recipe={name!r} holds no settings: write KEY: VALUE")
    for key, what in (("extends", "the name of a recipe"), ("data", "a place")):
        if not isinstance(found.get(key), str | None):
            raise InputError(f"recipe={name!r} has {key}={found[key]!r}: expected {what}")
    variants = found.get("variants", {})
    if not isinstance(variants, dict) or not all(isinstance(each, dict) for each in variants.values()):
        raise InputError(f"recipe={name!r} has variants={variants!r}: expected settings by pattern")
    return found


def _chain(name: str) -> list[dict[str, Any]]:
    """The recipe, behind those that it extends."""
    names, found = [name], [_read(name)]
    while (base := found[0].get("extends")) is not None:
        if base in names:
            raise InputError(f"recipe={name!r} extends itself")
        names.append(base)
        found.insert(0, _read(base))
    return found


def _checked(key: str, value: Any, place: str) -> Any:
    """The value as its setting's type, or an error."""
    if key not in _TYPES:
        close = get_close_matches(str(key), _TYPES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the settings are {', '.join(_TYPES)}"
        raise InputError(f"{place} has the unknown key {key!r}: {hint}")
    kinds = get_args(_TYPES[key]) if get_origin(_TYPES[key]) in (Union, types.UnionType) else (_TYPES[key],)
    for kind in kinds:
        fitting, found = _as(kind, value)
        if fitting:
            return found
    raise InputError(f"{place} has {key}={value!r}: expected {' or '.join(map(_describe, kinds))}")


def _as(kind: Any, value: Any) -> tuple[bool, Any]:
    if get_origin(kind) is Literal:
        return value in get_args(kind), value
    if get_origin(kind) is list:
        found = [_as(get_args(kind)[0], each) for each in value] if isinstance(value, list | tuple) else [(False, None)]
        return all(fitting for fitting, _ in found), [each for _, each in found]
    if kind is float and not isinstance(value, bool):
        try:
            return True, float(value)  # YAML reads 1e-4 as text
        except (TypeError, ValueError):
            return False, value
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return True, str(value)  # a filter's number of taps
    return type(value) is kind, value


def _describe(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    if get_origin(kind) is list:
        return f"a list such as [{'80, 120' if get_args(kind)[0] is int else '0.08, 1'}]"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}.get(kind, "null")
