"""An audit is an evaluation of a network beside its anti-aliased copy."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dealias.audit import AUDIT_METRICS, run_audit
from dealias.errors import InputError
from dealias.evaluation import evaluate
from dealias.models import create_model

NETWORK = "dealias:vgg_small,in_chans=3"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for label in range(10):
        (tmp_path / "pictures" / str(label)).mkdir(parents=True)
        coarse = Image.fromarray(draw.integers(0, 256, (6, 7, 3), dtype=np.uint8))
        coarse.resize((56, 48), Image.Resampling.BICUBIC).save(tmp_path / "pictures" / str(label) / "0.png")
    return tmp_path / "pictures"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    network = create_model("dealias:vgg_small", in_chans=3)
    for module in network.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data *= 20  # else it hardly tells images apart
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_audit_and_evaluate_give_the_same_numbers(pictures: Path, weights: Path, tmp_path: Path) -> None:
    models = [f"{NETWORK},weights={weights},label=plain", f"{NETWORK},weights={weights},antialias=tri3,label=copy"]
    with warnings.catch_warnings(action="ignore"):
        audited = run_audit(
            NETWORK, pictures, tmp_path / "audit", weights=weights, filter="tri3", limit=7, seed=5, workers=0
        )
        evaluated = evaluate(models, pictures, tmp_path / "evaluate", metrics=AUDIT_METRICS, limit=7, seed=5, workers=0)
    names = {"plain": "vgg_small", "copy": "anti-aliased, not trained"}
    for label, name in names.items():
        assert audited["metrics"][name] == evaluated["metrics"][label]
        assert audited["profiles"][name] == evaluated["profiles"][label]
        assert audited["sites"][name] == evaluated["sites"][label]
    assert audited["differences"][names["copy"]] == evaluated["differences"]["copy"]
    assert audited["images"] | {"not_a_number": None} == evaluated["images"] | {"not_a_number": None}
    values = [figure["value"] for figure in audited["metrics"]["vgg_small"].values()]
    assert len(set(values)) > 2
    files = [{path.name for path in (tmp_path / name).iterdir()} for name in ("audit", "evaluate")]
    assert files[0] == files[1]


def test_the_copy_has_the_same_random_weights(pictures: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        found = run_audit(NETWORK, pictures, tmp_path / "out", filter="1", workers=0)  # one tap changes nothing
    plain, copy = found["metrics"].values()
    assert {key: figure["value"] for key, figure in plain.items()} == {
        key: figure["value"] for key, figure in copy.items()
    }


def test_options_have_no_place_in_the_name(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are options for"):
        run_audit(f"{NETWORK},antialias=bin4", pictures, tmp_path / "out")
    assert not (tmp_path / "out").exists()
