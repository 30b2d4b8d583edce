"""`dealias sites`: list where a network subsamples."""

from __future__ import annotations

from rich.console import Console

from dealias.cli import common
from dealias.cli.common import app, network_and_example


@app.command("sites")
def list_sites(
    model: common.ConfiguredModel,
    weights: common.Weights = None,
    new_head: common.NewHead = False,
    method: common.Method = "blur",
    stem: common.Stem = False,
    recipe: common.Recipe = "same-size",
    input_size: common.InputSize = None,
    as_json: common.Json = False,
) -> None:
    """List the places where a network subsamples, and what anti-aliasing does at each."""
    import json
    from dataclasses import asdict

    from dealias.convert import sites
    from dealias.convert.report import sites_table

    network, example = network_and_example(model, weights, new_head, input_size)
    listed = sites(network, example, method=method, stem=stem, recipe=recipe)
    if as_json:
        print(json.dumps([asdict(site) for site in listed], indent=2))
        return
    Console().print(sites_table(listed))
