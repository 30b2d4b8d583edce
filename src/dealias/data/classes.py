"""Match the classes of images with those of a network."""

from __future__ import annotations

import re

from dealias.data.sources import Source
from dealias.errors import MissingExtraError
from dealias.optional import require

_IMAGENET_NAME = re.compile(r"n\d{8}")


def match_classes(source: Source, outputs: int) -> list[int] | None:
    """The network's class for each class of the source; None where they do not match.

    The classes match one to one where the source has as many as the network has outputs, or has only numbers, all below
    the outputs. Folders with ImageNet's names (n01440764) match some of the 1,000 classes by name.
    """
    if source.classes is None:
        return list(range(outputs)) if max(source.labels) < outputs else None
    if len(source.classes) == outputs:
        return list(range(outputs))
    if outputs == 1000 and all(map(_IMAGENET_NAME.fullmatch, source.classes)):
        try:
            data = require("timm").data
        except MissingExtraError:
            return None
        known = {name: number for number, name in enumerate(data.ImageNetInfo("imagenet-1k").label_names())}
        if all(name in known for name in source.classes):
            return [known[name] for name in source.classes]
    return None
