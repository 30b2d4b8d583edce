"""An audit is an evaluation of a network beside its anti-aliased copy; the command line has the numbers' test."""

from __future__ import annotations

import pytest

from dealias.audit import audited_models
from dealias.errors import InputError
from dealias.models import ModelSpec

NETWORK = "dealias:vgg_small,in_chans=3"


def test_the_copy_differs_in_the_filter_alone() -> None:
    found = audited_models(NETWORK, weights="mine.pth", new_head=True, filter="tri3")
    settings = {"in_chans": 3, "weights": "mine.pth", "new_head": True}
    assert found == [
        ModelSpec("dealias:vgg_small", **settings),
        ModelSpec("dealias:vgg_small", **settings, antialias="tri3", label="anti-aliased, not trained"),
    ]


def test_options_have_no_place_in_the_name() -> None:
    with pytest.raises(InputError, match="there are options for"):
        audited_models(f"{NETWORK},antialias=bin4")
