"""`dealias certify`: whether circular shifts, by whole pixels or not, change a network's answer, and why."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated

import typer

from dealias.cli import common
from dealias.cli.common import app, network_and_example, say
from dealias.errors import InputError, shown
from dealias.filters import parse_filter


@app.command("certify")
def certify_network(
    model: common.ConfiguredModel,
    weights: common.Weights = None,
    new_head: common.NewHead = False,
    circular: Annotated[bool, typer.Option("--circular", help="Let layers wrap around at the borders first.")] = False,
    polyphase: Annotated[bool, typer.Option("--polyphase", help="Put anchors in front of what subsamples.")] = False,
    alias_free: Annotated[bool, typer.Option("--alias-free", help="Make it alias-free.")] = False,
    filter: Annotated[str, typer.Option("--filter", help="With --polyphase: the blur behind the anchors.")] = "none",
    shift: Annotated[
        list[str] | None,
        typer.Option(help="Pixels to shift by: 3, 0.5, 1/3 or 3,5 (down, right); repeatable. Default: a whole period."),
    ] = None,
    input_size: common.InputSize = None,
    as_json: common.Json = False,
) -> None:
    """Try circular shifts in float64: is the answer exactly the same, and if not, why."""
    import json
    from dataclasses import asdict

    import torch

    from dealias.convert import antialias, certify, to_circular

    shifts = None if shift is None else [_amounts(text) for text in shift]
    taps = parse_filter(filter)
    if polyphase and alias_free:
        raise InputError("--polyphase and --alias-free are two methods: give one")
    if filter != "none" and not polyphase:
        raise InputError(f"filter={shown(filter)} changes nothing in a network as it is: add --polyphase")
    network, example = network_and_example(model, weights, new_head, input_size)
    example = torch.rand(example.shape, generator=torch.Generator().manual_seed(0))
    if circular:
        network = to_circular(network)
    if polyphase:
        network = antialias(network, example, method="polyphase", filter=taps)
    if alias_free:
        network = antialias(network, example, method="alias-free")
    certificate = certify(network, example, shifts=shifts)
    if as_json:
        print(json.dumps(asdict(certificate), indent=2))
        return
    for line in str(certificate).splitlines():
        say(line)


def _amounts(text: str) -> float | list[float]:
    try:
        amounts = [float(Fraction(part)) for part in text.split(",")]
    except (ValueError, ArithmeticError):
        raise InputError(f"shift={shown(text)} is not a number of pixels: write 3, 0.5, 1/3, or 3,5") from None
    return amounts[0] if len(amounts) == 1 else amounts
