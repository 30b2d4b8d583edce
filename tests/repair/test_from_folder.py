"""Which images are read, with labels or without."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from helpers.repairs import write_images
from safetensors.torch import save_file

from dealias.models import ModelSpec, create_model
from dealias.repair import RepairOptions
from dealias.repair.distillation import reestimate_statistics
from dealias.repair.from_folder import repair_from_folder
from dealias.repair.images import ImageChoice


def test_a_network_by_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = create_model("dealias:vgg_small")
    reestimate_statistics(network, [torch.rand(64, 1, 32, 32)])  # else it predicts one class only
    save_file(network.state_dict(), tmp_path / "baseline.safetensors")
    write_images(tmp_path / "images", 20)
    spec = ModelSpec("dealias:vgg_small", weights=str(tmp_path / "baseline.safetensors"))
    options = RepairOptions(filter=5, epochs=1, min_agreement=0.0, min_consistency=0, batch_size=8)
    outcome = repair_from_folder(spec, ImageChoice(tmp_path / "images"), tmp_path / "out", options, device="cpu")
    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert stored == json.loads(json.dumps(outcome.results))
    settings = stored["settings"]
    assert (settings["filter"], settings["batch_size"], settings["model"]["name"]) == (5, 8, "dealias:vgg_small")
    assert stored["images"] == {"trained_on": 16, "held_out": 4}
