"""`dealias report`: write the report of an evaluation again, or compare training runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dealias.cli.common import app, say


@app.command("report")
def report_runs(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folder of an evaluation, or folders of training runs.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="Folder for the page that compares training runs; default: the first run's.")
    ] = None,
) -> None:
    """Write the report of an evaluation again, or compare training runs on one page."""
    from dealias.errors import InputError
    from dealias.report.evaluation import write_report
    from dealias.report.training import is_training_run, write_comparison

    if all(is_training_run(run) for run in runs):
        page = write_comparison(runs, output or runs[0])
    elif len(runs) == 1:
        page = write_report(runs[0])
    else:
        others = ", ".join(str(run) for run in runs if not is_training_run(run))
        raise InputError(f"run={others!r} is not the folder of a training run: only those can be compared")
    say(page)
