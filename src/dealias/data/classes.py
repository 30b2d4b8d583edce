"""Which of a network's classes each class of some images is."""

from __future__ import annotations

import re

from dealias.data.sources import Source
from dealias.errors import MissingExtraError
from dealias.optional import require

_IMAGENET_NAME = re.compile(r"n\d{8}")


def match_classes(source: Source, outputs: int) -> list[int] | None:
    """The network's class of each of the source's; None where they do not match.

    Classes are the network's where there are as many, or where numbers alone are known and all below its outputs.
    Folders with ImageNet's names (n01440764), also some of them, are found among the 1,000 classes by name.
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
