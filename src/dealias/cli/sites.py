"""`dealias sites`: list where a network subsamples."""

from __future__ import annotations

from rich.console import Console

from dealias.cli.common import (
    ConfiguredModel,
    InputSize,
    Json,
    NewHead,
    Recipe,
    Stem,
    Weights,
    app,
    network_and_example,
)


@app.command("sites")
def list_sites(
    model: ConfiguredModel,
    weights: Weights = None,
    new_head: NewHead = False,
    stem: Stem = False,
    recipe: Recipe = "same-size",
    input_size: InputSize = None,
    as_json: Json = False,
) -> None:
    """List the places where a network subsamples, and what anti-aliasing does at each."""
    import json
    from dataclasses import asdict

    from dealias.convert import sites
    from dealias.convert.report import sites_table

    listed = sites(*network_and_example(model, weights, new_head, input_size), stem=stem, recipe=recipe)
    if as_json:
        print(json.dumps([asdict(site) for site in listed], indent=2))
        return
    Console().print(sites_table(listed))
