"""What several commands share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dealias.cli.common import network_and_example, say, show_progress, show_table
from dealias.errors import InputError
from dealias.models import create_model


@pytest.mark.parametrize(
    ("input_size", "shape"),
    [(None, (1, 1, 32, 32)), ("24", (1, 1, 24, 24)), ("24, 40", (1, 1, 24, 40)), ("3,24,40", (1, 3, 24, 40))],
)
def test_the_example_has_the_networks_size_or_the_one_asked_for(input_size: str | None, shape: tuple[int, ...]) -> None:
    network, example = network_and_example("dealias:vgg_small", None, False, input_size)
    assert example.shape == shape
    assert not example.any()
    assert isinstance(network, torch.nn.Module)
    assert network_and_example("dealias:vgg_small,in_chans=3", None, False, "24")[1].shape == (1, 3, 24, 24)


@pytest.mark.parametrize("input_size", ["", "x", "0", "1,2,3,4", "-5", "9999999999"])
def test_what_is_no_size_is_refused(input_size: str) -> None:
    with pytest.raises(InputError, match=r"input-size=.* is not a size: write 224"):
        network_and_example("dealias:vgg_small", None, False, input_size)


def test_the_network_has_the_weights(tmp_path: Path) -> None:
    weights = create_model("dealias:vgg_small").state_dict()
    save_file(weights, tmp_path / "own.safetensors")
    network, _ = network_and_example("dealias:vgg_small", tmp_path / "own.safetensors", False, None)
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_lines_and_tables_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    say("[bold]" + 200 * "x")
    say("wrong", error=True)
    show_table(("", "share"), [("one", "50%"), ("two", "7%")], title="shares")
    with show_progress() as on_progress:
        on_progress("nowhere but on a terminal", 0.5)
    shown = capsys.readouterr()
    line, *table = shown.out.splitlines()
    assert line == "[bold]" + 200 * "x"
    assert shown.err == "wrong\n"
    assert table[0].strip() == "shares"
    assert ["one", "│", "50%"] in [row.strip("│┃ ").split() for row in table]
