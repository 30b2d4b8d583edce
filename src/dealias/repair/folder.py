"""The folder of a repair: the state to go on from, the results, and the weights if it succeeded."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch
from torch import nn

from dealias.errors import InputError
from dealias.files import OutputFolder
from dealias.models.checkpoints import checkpoint_content
from dealias.repair.options import RepairOptions
from dealias.training.run_folder import problem_of_state, state_content

STATE, WEIGHTS, RESULTS = "state.pt", "model.safetensors", "results.json"


class RepairFolder(OutputFolder):
    """The folder of a repair; `resume` says whether a run in it goes on.

    Raises:
        InputError: the folder has other files, or a run and `resume` is false; or the repair would replace an input.
    """

    def __init__(self, path: str | PathLike[str], *, resume: bool, weights: str | None = None) -> None:
        super().__init__(path, "repair", writes=(STATE, WEIGHTS, RESULTS), inputs={"weights": weights})
        if self.has_run and not resume:
            raise InputError(f"output={str(path)!r} has a run: pass --resume to continue it, or name another folder")

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a state, whole or not at all."""
        self.write(STATE, state_content(state))

    def load(self, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """The saved state; None where there is none.

        Raises:
            InputError: it cannot be read, or comes from other settings or images.
        """
        path = self.path / STATE
        if not path.is_file():
            return None
        content = path.read_bytes()
        if problem := problem_of_state(content):
            raise InputError(f"{str(path)!r} cannot be read ({problem}): start again in another folder")
        stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        known = {"settings", "images", "found", "model", "distillations"}
        if not isinstance(stored, dict) or not known <= stored.keys():
            raise InputError(f"{str(path)!r} is not the state of a repair: start again in another folder")
        # what the state of an older version lacks has its default
        ours, theirs = (
            {**RepairOptions().identity(), **each["settings"], "images": each["images"]} for each in (identity, stored)
        )
        differing = [f"{name}={theirs.get(name)!r}" for name in ours if ours[name] != theirs.get(name)]
        if differing:
            raise InputError(
                f"resume: the run in {str(self.path)!r} had {', '.join(differing)}: give the same, or name another "
                "folder"
            )
        return stored

    def finish(self, results: Mapping[str, Any], model: nn.Module) -> None:
        """Write the results, and the weights if the repair succeeded.

        Raises:
            InputError: it did not, and the folder has the weights of a run that did; nothing is written.
        """
        if results["succeeded"]:
            self.write(WEIGHTS, checkpoint_content(model.state_dict()))
        elif (self.path / WEIGHTS).exists():
            raise InputError(
                f"output={str(self.path)!r} has weights that met lower aims: they and their results are "
                "left; name another folder"
            )
        self.write(RESULTS, json.dumps(results, indent=1) + "\n")
