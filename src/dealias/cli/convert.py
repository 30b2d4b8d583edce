"""`dealias sites` and `dealias convert`: where a network subsamples, and its anti-aliased form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from dealias.cli.common import ConfiguredModel, FilterText, NewHead, Output, Weights, app
from dealias.errors import InputError
from dealias.filters import parse_filter

if TYPE_CHECKING:
    from torch import Tensor, nn

Stem = Annotated[bool, typer.Option("--stem", help="Also the first strided convolution, which costs most.")]
Recipe = Annotated[str, typer.Option(help="same-size, or zhang2019: the paper's released networks.")]
InputSize = Annotated[
    str | None,
    typer.Option(help="Size of the input: 224, or height,width, or channels,height,width. Default: the network's own."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")]


def example_image(name: str, network: nn.Module, text: str | None, in_chans: int | None) -> Tensor:
    """One image of the size that `text` gives, or that the network is made for, with `in_chans` channels if given."""
    import torch

    from dealias.models import default_input_size

    channels, height, width = default_input_size(name, network)
    if text is not None:
        parts = [part.strip() for part in text.split(",")]
        if len(parts) > 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
            raise InputError(f"input-size={text!r} is no size: write 224, or 224,320, or 1,28,28 with the channels")
        *more, height, width = [int(part) for part in parts] * (2 if len(parts) == 1 else 1)
        in_chans = more[0] if more else in_chans
    return torch.zeros(1, in_chans or channels, height, width)


@app.command()
def sites(
    model: ConfiguredModel,
    weights: Weights = None,
    new_head: NewHead = False,
    stem: Stem = False,
    recipe: Recipe = "same-size",
    input_size: InputSize = None,
    as_json: Json = False,
) -> None:
    """List every place where a network subsamples, and what anti-aliasing would do there."""
    import json
    from dataclasses import asdict

    from dealias.convert import sites as find_sites
    from dealias.convert.report import sites_table
    from dealias.models import create_model, parse_model

    name, own = parse_model(model)
    network = create_model(name, weights=weights, new_head=new_head, **own)
    found = find_sites(network, example_image(name, network, input_size, own.get("in_chans")), stem=stem, recipe=recipe)
    if as_json:
        print(json.dumps([asdict(site) for site in found], indent=2))
        return
    Console().print(sites_table(found))


@app.command()
def convert(
    model: ConfiguredModel,
    weights: Weights = None,
    new_head: NewHead = False,
    output: Output = Path("runs/convert"),
    filter: FilterText = "bin4",
    stem: Stem = False,
    recipe: Recipe = "same-size",
    strict: Annotated[bool, typer.Option("--strict", help="Fail where a site cannot be anti-aliased.")] = False,
    input_size: InputSize = None,
    as_json: Json = False,
) -> None:
    """Anti-alias a network: write its checkpoint, and a report of what changed and what it costs."""
    from dealias.convert import antialias_with_report
    from dealias.files import prepare_output, write_whole
    from dealias.models import create_model, parse_model
    from dealias.optional import require

    safetensors = require("safetensors.torch")
    taps = parse_filter(filter)
    folder = prepare_output(output)
    name, own = parse_model(model)
    network = create_model(name, weights=weights, new_head=new_head, **own)
    converted, report = antialias_with_report(
        network,
        example_image(name, network, input_size, own.get("in_chans")),
        filter=taps,
        stem=stem,
        recipe=recipe,
        strict=strict,
        inplace=True,
    )
    tensors = {name: tensor.clone().contiguous() for name, tensor in converted.state_dict().items()}
    metadata = {"format": "pt", "model": model, "filter": filter, "stem": str(stem), "recipe": recipe}
    write_whole(folder / "model.safetensors", safetensors.save(tensors, metadata))
    write_whole(folder / "report.json", report.to_json())
    if as_json:
        print(report.to_json(), end="")
        return
    console = Console()
    console.print(report)
    console.print(folder / "model.safetensors", soft_wrap=True, highlight=False)
    console.print(folder / "report.json", soft_wrap=True, highlight=False)
