"""Networks as text: a name, and what is done to it.

>>> spec = ModelSpec.parse("dealias:vgg_small,antialias=bin5,label=mine")
>>> spec.name, spec.antialias, spec.label
('dealias:vgg_small', 'bin5', 'mine')
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from dealias.errors import InputError, parse_int
from dealias.filters import parse_filter
from dealias.models.zoo import create_model

_NUMBERS = ("num_classes", "in_chans")
_TEXTS = ("weights", "antialias", "recipe", "padding_mode", "label")
_SWITCHES = {"new_head": {"true": True, "false": False}}


@dataclass(frozen=True)
class ModelSpec:
    """A network by name, with what is done to it.

    Attributes:
        name: as for `dealias.models.create_model`.
        weights: path of a checkpoint.
        new_head: load all but the head of weights with another number of classes.
        antialias: filter of `dealias.antialias`; None leaves the network as it is.
        recipe: of the anti-aliasing.
        padding_mode, num_classes, in_chans: of the network's constructor; None leaves its own.
        label: what tables and plots call it.
    """

    name: str
    weights: str | None = None
    antialias: str | None = None
    recipe: str = "same-size"
    padding_mode: str | None = None
    num_classes: int | None = None
    in_chans: int | None = None
    label: str = ""
    new_head: bool = False

    @classmethod
    def parse(cls, text: str) -> ModelSpec:
        """The network that "NAME,KEY=VALUE,..." describes; the keys are the other attributes.

        Raises:
            InputError: an unknown key, or a value that is not of the key's kind.
        """
        name, *pairs = text.split(",")
        settings: dict[str, Any] = {}
        for pair in pairs:
            key, equals, value = pair.partition("=")
            keys = (*_TEXTS, *_NUMBERS, *_SWITCHES)
            if not equals or key not in keys or not value:
                raise InputError(f"model={text!r} has {pair!r}: write NAME,KEY=VALUE,... with {', '.join(keys)}")
            settings[key] = value
            if key in _NUMBERS:
                settings[key] = parse_int(key, value, 1)
            elif key in _SWITCHES:
                if value not in _SWITCHES[key]:
                    raise InputError(f"model={text!r} has {pair!r}: {key} must be true or false")
                settings[key] = _SWITCHES[key][value]
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
            filter=parse_filter(self.antialias or "bin4"),
            recipe=self.recipe,
            num_classes=self.num_classes,
            in_chans=self.in_chans,
            weights=self.weights,
            new_head=self.new_head,
            **own,
        ).eval()

    def identity(self) -> dict[str, Any]:
        """What makes another network of it: all but the label, and a digest of the checkpoint."""
        found = {key: value for key, value in asdict(self).items() if value not in (None, False) and key != "label"}
        if self.weights is not None and Path(self.weights).is_file():
            with open(self.weights, "rb") as file:
                found["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        return found


def parse_model(text: str) -> tuple[str, dict[str, Any]]:
    """A network's name, and the settings of its constructor, of "NAME,KEY=VALUE,...".

    >>> parse_model("dealias:vgg_small,num_classes=5")
    ('dealias:vgg_small', {'num_classes': 5})

    Raises:
        InputError: another key than num_classes, in_chans and padding_mode: the rest has options of its own.
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
