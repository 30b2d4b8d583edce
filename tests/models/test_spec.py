"""Networks as text: keys, labels, identities."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dealias.errors import InputError
from dealias.models import ModelSpec, parse_model
from dealias.models.spec import label_models

NAME = "dealias:vgg_small"


def test_keys_are_the_attributes() -> None:
    found = ModelSpec.parse(f"{NAME},antialias=tri3,num_classes=7,new_head=true,label=mine")
    assert found == ModelSpec(NAME, antialias="tri3", num_classes=7, new_head=True, label="mine")
    assert parse_model(f"{NAME},in_chans=3") == (NAME, {"in_chans": 3})
    for text, message in [
        ("colour=red", "colour=red"),
        ("num_classes=x", "a number"),
        ("new_head=yes", "true or false"),
    ]:
        with pytest.raises(InputError, match=message):
            ModelSpec.parse(f"{NAME},{text}")


def test_every_network_gets_a_label_of_its_own() -> None:
    found = label_models([NAME, f"{NAME},antialias=bin4", NAME, ModelSpec(NAME, label="mine"), NAME])
    assert [spec.label for spec in found] == [
        *("vgg_small", "vgg_small + bin4", "vgg_small #2", "mine", "vgg_small #3"),
    ]
    with pytest.raises(InputError, match="label='mine' names two networks"):
        label_models([f"{NAME},label=mine"] * 2)
    with pytest.raises(InputError, match="models is empty"):
        label_models([])


def test_the_identity_has_the_checkpoint_s_digest_and_no_label(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"weights")
    spec = ModelSpec(NAME, weights=str(tmp_path / "weights.pth"), antialias="bin4", label="mine")
    digest = hashlib.sha256(b"weights").hexdigest()[:16]
    assert spec.identity() == {
        "name": NAME,
        "weights": spec.weights,
        "antialias": "bin4",
        "recipe": "same-size",
        "sha256": digest,
    }
