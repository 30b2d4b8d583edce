"""Config: a training run as it is asked for, and as `config.yaml` holds it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import dealias
from dealias.errors import InputError, reason, shown
from dealias.optional import require
from dealias.training.settings import Settings

FREE_KEYS = ("save_every", "versions")
"""Keys of `config.yaml` whose values may change when a run is resumed."""


@dataclass(frozen=True)
class Config:
    """A training run as it is asked for.

    Attributes:
        model: as for `dealias.models.create_model`.
        settings: how it is trained.
        recipe: name of the recipe that the settings come from, for the record.
        data: class folders, WebDataset shards, a Hugging Face dataset on disk (see `dealias.data.open_source`), a
            stream `hf:NAME`, or `digits`. Subfolders `train` and `val` (or `validation`, `test`) are used as such.
        val_data: images to measure on. Without it and without such a subfolder, a tenth of `data` is held out.
        weights: a checkpoint to start from.
        new_head: load all but the head of weights with another number of classes.
        limit: train on at most this many images, drawn by `seed`.
        seed: of the weights, the order and every other random number.
    """

    model: str
    settings: Settings
    recipe: str = ""
    data: str | None = None
    val_data: str | None = None
    weights: str | None = None
    new_head: bool = False
    limit: int | None = None
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The content of `config.yaml`."""
        own = {key: value for key, value in vars(self).items() if key != "settings"}
        versions = {"dealias": dealias.__version__, "torch": str(torch.__version__)}
        return {**own, **self.settings.model_dump(), "versions": versions}

    def check_resumes(self, path: Path) -> None:
        """Check that the run whose `config.yaml` is at `path` is this one.

        A key that the file lacks has its default: the run is of an older version.

        Raises:
            InputError: the file cannot be read, or a key has another value.
        """
        yaml, defaults = require("yaml"), Config("", Settings.model_construct()).to_dict()
        try:
            stored = {**defaults, **yaml.safe_load(path.read_text(encoding="utf-8"))}
        except (OSError, yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{str(path)!r} cannot be read: {reason(error)}; start again in another folder") from None
        config = self.to_dict()
        for key in sorted({*stored, *config} - set(FREE_KEYS), key=str):
            if stored.get(key) != config.get(key):
                theirs, ours = shown(stored.get(key)), shown(config.get(key))
                raise InputError(
                    f"output={str(path.parent)!r} has a run with {key}={theirs}, not {ours}: "
                    "resume it with its own settings, or name another folder"
                )
