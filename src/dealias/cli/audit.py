"""`dealias demo` and `dealias audit`: the whole job, and the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from dealias.cli.common import ConfiguredModel, FilterText, Limit, NewHead, Output, Seed, Weights, app, show_progress
from dealias.filters import parse_filter


def show_results(results: dict[str, Any], folder: Path) -> None:
    """Print the finding, the table of the networks and the path of the report."""
    from dealias.report.summary import summary_rows

    table = Table("", *results["networks"].values())
    for row in summary_rows(results):
        table.add_row(*row)
    console = Console()
    console.print(results["finding"], style="bold", markup=False, highlight=False)
    console.print(table)
    console.print(folder / "report.html", soft_wrap=True, highlight=False)


@app.command()
def demo(
    output: Output = Path("runs/demo"),
    quick: Annotated[bool, typer.Option("--quick", help="The short form, about a minute.")] = False,
    seed: Seed = 0,
) -> None:
    """Show the problem on photographs, then train a network with and without anti-aliasing and compare."""
    from dealias.demo import run_demo

    with show_progress() as on_progress:
        results = run_demo(output, seed=seed, quick=quick, on_progress=on_progress)
    show_results(results, output)


@app.command()
def audit(
    model: ConfiguredModel,
    images: Annotated[Path, typer.Option(help="Folder of images with one subfolder for each class.")],
    weights: Weights = None,
    new_head: NewHead = False,
    filter: FilterText = "bin4",
    limit: Limit = None,
    output: Output = Path("runs/audit"),
    seed: Seed = 0,
) -> None:
    """Measure how shift-sensitive a network is on your images, beside its anti-aliased copy."""
    from dealias.audit import run_audit

    with show_progress() as on_progress:
        results = run_audit(
            model,
            images,
            output,
            weights=weights,
            new_head=new_head,
            filter=parse_filter(filter),
            limit=limit,
            seed=seed,
            on_progress=on_progress,
        )
    show_results(results, output)
