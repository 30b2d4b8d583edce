"""`dealias convert`: write the anti-aliased form of a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dealias.cli import common
from dealias.cli.common import app, network_and_example, say
from dealias.filters import parse_filter


@app.command("convert")
def convert_network(
    model: common.ConfiguredModel,
    weights: common.Weights = None,
    new_head: common.NewHead = False,
    output: common.Output = Path("runs/convert"),
    method: common.Method = "blur",
    filter: common.FilterText = "bin4",
    stem: common.Stem = False,
    recipe: common.Recipe = "same-size",
    strict: Annotated[bool, typer.Option("--strict", help="Fail if a site cannot be anti-aliased.")] = False,
    input_size: common.InputSize = None,
    as_json: common.Json = False,
) -> None:
    """Anti-alias a network: write its checkpoint and a report of the changes and their cost."""
    from dealias.convert import antialias_with_report
    from dealias.files import OutputFolder
    from dealias.models.checkpoints import checkpoint_content
    from dealias.optional import require

    require("safetensors")  # now, not after the conversion
    taps = parse_filter(filter)
    files = ["model.safetensors", "report.json"]
    with OutputFolder(output, "convert", writes=files, inputs={"weights": weights}) as folder:
        converted, report = antialias_with_report(
            *network_and_example(model, weights, new_head, input_size),
            method=method,
            filter=taps,
            stem=stem,
            recipe=recipe,
            strict=strict,
            inplace=True,
        )
        used = "ideal" if method == "alias-free" else filter
        settings = {"model": model, "method": method, "filter": used, "stem": str(stem), "recipe": recipe}
        written = [
            folder.write("model.safetensors", checkpoint_content(converted.state_dict(), **settings)),
            folder.write("report.json", report.to_json()),
        ]
    if as_json:
        print(report.to_json(), end="")
        return
    Console().print(report)
    for path in written:
        say(path)
