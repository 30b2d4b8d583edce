"""The files of a repair: what is refused, and what is left as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.repairs import small_images, small_network

from dealias.errors import InputError
from dealias.repair import repair


def test_a_damaged_state(tmp_path: Path):
    options: dict[str, Any] = {"epochs": 1, "min_agreement": 0.0, "min_consistency": 0.0, "output": tmp_path}
    repair(small_network(), small_images(), **options)
    for damaged in (b"half", (tmp_path / "state.pt").read_bytes().replace(b"data.pkl", b"data.pk\xff")):
        (tmp_path / "state.pt").write_bytes(damaged)
        with pytest.raises(InputError, match=r"state\.pt' cannot be read"):
            repair(small_network(), small_images(), resume=True, **options)
    torch.save({"epoch": 3}, tmp_path / "state.pt")
    with pytest.raises(InputError, match=r"state\.pt' is not the state of a repair"):
        repair(small_network(), small_images(), resume=True, **options)


def test_the_state_of_an_older_version_that_lacks_an_option(tmp_path: Path):
    options: dict[str, Any] = {"epochs": 1, "min_agreement": 0.0, "min_consistency": 0.0, "output": tmp_path}
    repair(small_network(), small_images(), **options)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    del state["settings"]["keep_norms"]
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(InputError, match="had keep_norms=False"):
        repair(small_network(), small_images(), resume=True, keep_norms=True, **options)
    assert repair(small_network(), small_images(), resume=True, **options).succeeded


def test_a_resumed_run_that_fails_leaves_the_weights_of_the_one_before(tmp_path: Path):
    options: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-9, "output": tmp_path}
    assert repair(small_network(), small_images(), min_agreement=0.0, min_consistency=0, **options).succeeded
    assert (tmp_path / "model.safetensors").exists()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match="has weights that met lower aims"):
        repair(small_network(), small_images(), min_agreement=1.0, resume=True, **options)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_files_of_the_user_are_never_touched(tmp_path: Path):
    for name in ("model.safetensors", "state.pt", "notes.txt"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(InputError, match="has other files"):
            repair(small_network(), small_images(), epochs=1, min_agreement=0, min_consistency=0, output=tmp_path)
        assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
        (tmp_path / name).unlink()
    repair(small_network(), small_images(), epochs=1, min_agreement=0, min_consistency=0, output=tmp_path)
    with pytest.raises(InputError, match="has a run: pass --resume"):
        repair(small_network(), small_images(), epochs=1, min_agreement=0, min_consistency=0, output=tmp_path)
