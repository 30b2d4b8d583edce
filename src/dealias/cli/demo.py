"""`dealias demo`: the whole job on real data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dealias.cli.common import Output, Seed, app, say, show_progress, show_table


@app.command("demo")
def show_demo(
    output: Output = Path("runs/demo"),
    quick: Annotated[bool, typer.Option("--quick", help="The short form, about a minute.")] = False,
    seed: Seed = 0,
) -> None:
    """Show the problem on photographs, then train a network with and without anti-aliasing and compare."""
    from dealias.demo import run_demo
    from dealias.report.metric_text import figure_rows

    with show_progress() as on_progress:
        results = run_demo(output, seed=seed, quick=quick, on_progress=on_progress)
    say(results.finding, style="bold")
    show_table(("", *results.metrics), figure_rows(results.metrics))
    say(output / "report.html")
