"""Recipes: the settings of a training, by name, as YAML files inside the package."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from dealias.errors import InputError, shown
from dealias.optional import require

try:
    import pydantic
    from pydantic import BaseModel, BeforeValidator, Field, NonNegativeInt, PositiveInt, ValidationError
except ModuleNotFoundError:
    require("pydantic")  # raises the error that names the extra
    raise


class Options(BaseModel):
    """Options that are checked when they are made.

    Raises:
        InputError: an unknown key, a missing one, or a value of the wrong type or range.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _as_input_error(error, type(self), values) from None


def _check_crop_scale(scale: list[float]) -> list[float]:
    if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
        raise ValueError("it must be the smallest and the largest fraction of the image, such as [0.08, 1]")
    return scale


# Not strict: YAML reads 1e-4 as text. But true is not a number.
Number = Annotated[float, Field(strict=False), BeforeValidator(lambda v: str(v) if isinstance(v, bool) else v)]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Fraction = Annotated[Number, Field(ge=0, le=1)]
_Epochs = Annotated[list[PositiveInt], Field(min_length=1, strict=False)]
_CropScale = Annotated[list[Number], Field(strict=False), pydantic.AfterValidator(_check_crop_scale)]
_FilterText = Annotated[str, Field(strict=False, coerce_numbers_to_str=True)]  # a number of taps is a filter too


class Settings(Options):
    """The settings of a training.

    Attributes:
        epochs: passes over the images.
        batch_size: images in a step, over all processes. An epoch is cut into the fewest batches of at most this size.
            Their sizes differ by one at most: no image is left out or comes twice.
        optimizer: as `timm.optim.create_optimizer_v2` calls it: `momentum` is SGD, `sgd` SGD with Nesterov momentum.
        learning_rate: the highest of the schedule, for `batch_size` images.
        schedule: `step` (times `decay_rate` every `decay_epochs` epochs, or after each of a list of them), `cosine` (to
            0), `one-cycle` or `constant`.
        warmup_epochs: length of the linear warm-up before `step`, `cosine` or `constant`.
        momentum, weight_decay: of the optimizer.
        decay_all: decay biases and normalisations too, as the paper does.
        label_smoothing: of the cross entropy.
        clip_grad_norm: largest norm of the gradients; None for no clipping.
        shift_augmentation: move images at random: the switch that the paper studies. `crop` says how: `resized` is
            `RandomResizedCrop` with `crop_scale`, `padded` pads by `crop_padding` and crops. Without it, the middle.
        flip: probability of a horizontal flip.
        auto_augment: a policy of timm, such as `rand-m9-mstd0.5`.
        random_erasing: probability of timm's random erasing.
        mixup, cutmix: alpha of torchvision's MixUp and CutMix; one is chosen at random where both are above 0.
        ema_decay: decay of the exponential moving average of the weights. Where it is given, the average is measured
            and published.
        precision: fp32, bf16 or fp16 (autocast).
        channels_last: memory format.
        compile: run `torch.compile`.
        accumulation: number of parts of a process's batch; more parts need less memory.
        antialias: train the anti-aliased network. `filter`, `antialias_method`, `antialias_recipe`: see
            `dealias.antialias`.
        padding_mode: of dealias's own networks.
        num_classes, in_chans: of the network; by default those of the data.
        image_size, crop_size: see `dealias.models.preprocessing_for`.
        consistency_pairs: pairs of shifts of each validation image, after every epoch.
        log_every: steps in a record of the log.
        save_every: largest number of seconds between two saved states. The state is saved after each epoch too.
    """

    epochs: PositiveInt
    batch_size: PositiveInt
    learning_rate: Positive
    optimizer: str = "momentum"
    momentum: Fraction = 0.9
    weight_decay: NonNegative = 0.0
    decay_all: bool = True
    schedule: Literal["step", "cosine", "one-cycle", "constant"] = "cosine"
    decay_epochs: PositiveInt | _Epochs = 30
    decay_rate: Positive = 0.1
    warmup_epochs: NonNegative = 0.0
    label_smoothing: Fraction = 0.0
    clip_grad_norm: Positive | None = None
    shift_augmentation: bool = True
    crop: Literal["resized", "padded"] = "resized"
    crop_scale: _CropScale | None = None
    crop_padding: NonNegativeInt = 4
    flip: Fraction = 0.5
    auto_augment: str | None = None
    random_erasing: Fraction = 0.0
    mixup: NonNegative = 0.0
    cutmix: NonNegative = 0.0
    ema_decay: Fraction | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    compile: bool = False
    accumulation: PositiveInt = 1
    antialias: bool = False
    filter: _FilterText = "bin4"
    antialias_method: str = "blur"
    antialias_recipe: str = "same-size"
    padding_mode: str | None = None
    num_classes: PositiveInt | None = None
    in_chans: PositiveInt | None = None
    image_size: PositiveInt | None = None
    crop_size: PositiveInt | None = None
    consistency_pairs: PositiveInt = 1
    log_every: PositiveInt = 10
    save_every: Positive = 20.0

    @pydantic.model_validator(mode="after")
    def _check_warmup(self) -> Settings:
        if self.schedule == "one-cycle" and self.warmup_epochs:
            raise ValueError(
                f"warmup_epochs={self.warmup_epochs!r} does not go with schedule='one-cycle', which warms up"
            )
        return self


class _Recipe(BaseModel):
    """A recipe's file: these keys, and settings."""

    model_config = pydantic.ConfigDict(extra="allow", strict=True)

    extends: str | None = None
    data: str | None = None
    variants: dict[str, dict[str, Any]] = {}


def recipe_names() -> list[str]:
    """The recipes that can be named."""
    files = resources.files("dealias.training").joinpath("recipes").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def recipe_text(name: str) -> str:
    """The recipe as it is written: one of `recipe_names()`, or the path of a YAML file.

    Raises:
        InputError: there is no such recipe.
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
    return next((recipe.data for recipe in reversed(_chain(name)) if recipe.data is not None), None)


def load_recipe(
    name: str, *, model: str = "", overrides: Mapping[str, Any] | None = None, scale_learning_rate: float = 1.0
) -> Settings:
    """The settings of a recipe for a network.

    >>> load_recipe("zhang2019-imagenet", model="torchvision:vgg16_bn", overrides={"epochs": 2}).learning_rate
    0.05

    Args:
        name: one of `recipe_names()`, or the path of a YAML file.
        model: the network's name: recipes have variants by architecture.
        overrides: settings that replace the recipe's.
        scale_learning_rate: factor of the recipe's learning rate. It has no effect on a recipe with a factor of its
            own, nor on a learning rate in `overrides`.

    Raises:
        InputError: an unknown recipe or key, or a value of the wrong type or range.
    """
    place, arch = f"recipe={name!r}", model.partition(":")[2] or model
    found: dict[str, Any] = {"scale_learning_rate": scale_learning_rate}
    for recipe in _chain(name):
        found |= recipe.model_extra or {}
        for pattern, variant in recipe.variants.items():
            if fnmatchcase(arch, pattern):
                found |= variant
    scale = _checked(Number, "scale_learning_rate", found.pop("scale_learning_rate"), place)
    values = _checked_settings(found, place)
    if "learning_rate" in values:
        values["learning_rate"] *= scale
    values |= _checked_settings(overrides or {}, "settings")
    if missing := [key for key, each in Settings.model_fields.items() if each.is_required() and key not in values]:
        raise InputError(f"{place} lacks {', '.join(missing)}")
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
            raise InputError(f"set={shown(pair)} has no value: write KEY=VALUE")
        try:
            found[key.strip()] = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError):
            raise InputError(f"set={shown(pair)} has a value that YAML cannot read") from None
    return _checked_settings(found, "set")


def _read(name: str) -> _Recipe:
    yaml = require("yaml")
    try:
        found = yaml.safe_load(recipe_text(name))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"recipe={name!r} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise InputError(f"recipe={name!r} holds no settings: write KEY: VALUE")
    try:
        return _Recipe.model_validate({str(key): value for key, value in found.items()})
    except ValidationError as error:
        raise _as_input_error(error, _Recipe, found, f"recipe={name!r}") from None


def _chain(name: str) -> list[_Recipe]:
    """The recipe, behind those that it extends."""
    names, found = [name], [_read(name)]
    while (base := found[0].extends) is not None:
        if base in names:
            raise InputError(f"recipe={name!r} extends itself")
        names.append(base)
        found.insert(0, _read(base))
    return found


def _checked_settings(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Some of the settings, each as its own type; an error names the place that they come from."""
    found = {}
    for key, value in values.items():
        if key not in Settings.model_fields:
            raise _unknown_key(str(key), Settings, place)
        field = Settings.model_fields[key]
        found[key] = _checked(Annotated[field.annotation, field], key, value, place)
    return found


def _checked(kind: Any, key: str, value: Any, place: str) -> Any:
    try:
        adapter = pydantic.TypeAdapter(dict[str, kind], config=Settings.model_config)
        return adapter.validate_python({key: value})[key]
    except ValidationError as error:
        raise _as_input_error(error, Settings, {key: value}, place) from None


def _as_input_error(
    error: ValidationError, kind: type[BaseModel], values: Mapping[str, Any], place: str = ""
) -> InputError:
    """The first problem of a validation in one line: the place, the key, its value, and what would do."""
    problems = error.errors()
    first = next((each for each in problems if each["type"] == "extra_forbidden"), problems[0])
    if not first["loc"]:
        return InputError(_plain(first["msg"]))
    key = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return _unknown_key(key, kind, place)
    if key not in values:
        missing = (str(each["loc"][0]) for each in problems if each["type"] == "missing")
        return InputError(f"{place or kind.__name__} lacks {', '.join(missing)}")
    same = [each for each in problems if each["loc"][0] == key]
    depth = max(len(each["loc"]) for each in same)  # where a setting has several types, the type that came closest
    wanted = " or ".join(dict.fromkeys(_plain(each["msg"]) for each in same if len(each["loc"]) == depth))
    return InputError(f"{place and place + ' has '}{key}={values[key]!r}: {wanted.replace(' or it must be ', ' or ')}")


def _plain(message: str) -> str:
    return re.sub("^(Input|List) should ", "it must ", message.removeprefix("Value error, "))


def _unknown_key(key: str, kind: type[BaseModel], place: str) -> InputError:
    close = get_close_matches(key, kind.model_fields, n=1)
    hint = f"did you mean {close[0]}?" if close else f"use one of {', '.join(kind.model_fields)}"
    return InputError(f"{place or kind.__name__} has the unknown key {key!r}: {hint}")
