"""A network and its settings in one text: "NAME,KEY=VALUE,..."."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from dealias.errors import InputError, printable, shown
from dealias.files import digest
from dealias.filters import parse_filter
from dealias.models.zoo import create_model

_READERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("weights", "antialias", "method", "recipe", "padding_mode", "label"), str),
    **dict.fromkeys(("num_classes", "in_chans"), int),
    "new_head": {"true": True, "false": False}.__getitem__,
}


@dataclass(frozen=True)
class ModelSpec:
    """A network by name, with its settings.

    Attributes:
        name: as for `dealias.models.create_model`.
        weights: path of a checkpoint.
        new_head: load a checkpoint with another number of classes without its head.
        antialias: filter of `dealias.antialias`; None leaves the network as it is. "ideal" with "alias-free".
        method: of the anti-aliasing, "blur", "polyphase" or "alias-free"; None is "blur".
        recipe: the recipe of the anti-aliasing.
        padding_mode, num_classes, in_chans: arguments of the network's constructor; None keeps its defaults.
        label: the name in tables and plots.
    """

    name: str
    weights: str | None = None
    antialias: str | None = None
    method: str | None = None
    recipe: str = "same-size"
    padding_mode: str | None = None
    num_classes: int | None = None
    in_chans: int | None = None
    label: str = ""
    new_head: bool = False

    @classmethod
    def parse(cls, text: str) -> ModelSpec:
        """Read "NAME,KEY=VALUE,..."; the keys are the names of the other attributes.

        >>> ModelSpec.parse("dealias:vgg_small,antialias=bin5").antialias
        'bin5'

        Raises:
            InputError: a key is unknown, or its value is not of the right kind.
        """
        name, *pairs = text.split(",")
        settings: dict[str, Any] = {}
        for pair in pairs:
            key, _, value = pair.partition("=")
            if key not in _READERS or not value:
                raise InputError(
                    f"model={shown(text)} has {shown(pair)}: write NAME,KEY=VALUE,... with {', '.join(_READERS)}"
                )
            try:
                settings[key] = _READERS[key](value)
            except (KeyError, ValueError):
                valid = "true or false" if key == "new_head" else "a number"
                raise InputError(f"model={shown(text)} has {shown(pair)}: {key} must be {valid}") from None
        if settings.get("method") == "alias-free":
            settings.setdefault("antialias", "ideal")
        if "method" in settings and "antialias" not in settings:
            raise InputError(f"model={shown(text)} has a method and no filter: add antialias=FILTER")
        return cls(name, **settings)

    def build(self) -> nn.Module:
        """The network in eval mode.

        Raises:
            InputError, MissingExtraError: as `dealias.models.create_model`.
        """
        own: dict[str, Any] = {"padding_mode": self.padding_mode} if self.padding_mode else {}
        return create_model(
            self.name,
            antialias=self.antialias is not None,
            method=self.method or "blur",
            filter=parse_filter(self.antialias or "bin4"),
            recipe=self.recipe,
            num_classes=self.num_classes,
            in_chans=self.in_chans,
            weights=self.weights,
            new_head=self.new_head,
            **own,
        ).eval()

    def identity(self) -> dict[str, Any]:
        """All settings but the label, with a digest of the checkpoint: equal for equal networks."""
        settings = {key: value for key, value in asdict(self).items() if value not in (None, False) and key != "label"}
        if self.weights is not None and Path(self.weights).is_file():
            settings["sha256"] = digest(self.weights)
        return settings


def parse_model(text: str) -> tuple[str, dict[str, Any]]:
    """Read the name and the constructor's settings of a network from "NAME,KEY=VALUE,...".

    >>> parse_model("dealias:vgg_small,num_classes=5")
    ('dealias:vgg_small', {'num_classes': 5})

    Raises:
        InputError: a key is not num_classes, in_chans or padding_mode; the other settings have options of their own.
    """
    spec = ModelSpec.parse(text)
    given = {"num_classes": spec.num_classes, "in_chans": spec.in_chans, "padding_mode": spec.padding_mode}
    own: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if spec != ModelSpec(spec.name, **own):
        raise InputError(
            f"model={text!r}: write NAME,KEY=VALUE,... with num_classes, in_chans, padding_mode; there are options for "
            "the weights, the new head and the anti-aliasing"
        )
    return spec.name, own


def label_models(models: Sequence[ModelSpec | str]) -> list[ModelSpec]:
    """The networks, each with a label of its own.

    Raises:
        InputError: there are none, or two have the same label.
    """
    specs = [ModelSpec.parse(model) if isinstance(model, str) else model for model in models]
    if not specs:
        raise InputError("models is empty: name at least one network")
    labelled: list[ModelSpec] = []
    for spec in specs:
        how = " + ".join(each for each in (spec.antialias, spec.method) if each)
        own = printable(spec.label) or spec.name.partition(":")[2] + (f" + {how}" if how else "")
        same = sum(each.label == own or each.label.startswith(f"{own} #") for each in labelled)
        if same and spec.label:
            raise InputError(f"label={own!r} names two networks: give each its own")
        labelled.append(replace(spec, label=f"{own} #{same + 1}" if same else own))
    return labelled


def inputs_of(specs: Sequence[ModelSpec]) -> dict[str, str]:
    """The checkpoints of the networks, by the words that name them in messages."""
    return {f"weights of {spec.label}": spec.weights for spec in specs if spec.weights is not None}
