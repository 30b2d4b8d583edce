"""The command line: every command is a few lines over the library."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from dealias.errors import InputError, MissingExtraError
from dealias.filters import Filter
from dealias.progress import OnProgress

app = typer.Typer(
    name="dealias",
    help="Make convolutional networks stable under small shifts: measure, fix, train, see.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Output = Annotated[Path, typer.Option(help="Folder to write into.")]
Seed = Annotated[int, typer.Option(help="Seed of every random draw.", min=0)]


@contextmanager
def _progress() -> Iterator[OnProgress]:
    columns = (TextColumn("{task.description:<30}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("starting", total=1.0)
            yield lambda stage, done: progress.update(task, description=stage, completed=done)
    except KeyboardInterrupt:  # Typer exits with 130, without a word
        console.print("interrupted", style="yellow")
        raise


def _show_results(results: dict[str, Any], folder: Path) -> None:
    from dealias.report.summary import summary_rows

    table = Table("", *results["networks"].values())
    for row in summary_rows(results):
        table.add_row(*row)
    console = Console()
    console.print(results["finding"], style="bold", markup=False, highlight=False)
    console.print(table)
    console.print(folder / "report.html", soft_wrap=True, highlight=False)


def parse_filter(text: str) -> Filter:
    """The filter that `text` names: a name, a number of taps, or taps separated by commas."""
    if text.isdecimal():
        return int(text)
    if "," not in text:
        return text
    try:
        return [float(tap) for tap in text.split(",")]
    except ValueError:
        raise InputError(f"filter={text!r} is no list of taps: write numbers such as 1,2,1") from None


@app.command()
def demo(
    output: Output = Path("runs/demo"),
    quick: Annotated[bool, typer.Option("--quick", help="The short form, about a minute.")] = False,
    seed: Seed = 0,
) -> None:
    """Show the problem on photographs, then train a network with and without anti-aliasing and compare."""
    from dealias.demo import run_demo

    with _progress() as on_progress:
        results = run_demo(output, seed=seed, quick=quick, on_progress=on_progress)
    _show_results(results, output)


@app.command()
def audit(
    model: Annotated[str, typer.Argument(help="torchvision:NAME, timm:NAME, dealias:NAME or package.module:factory.")],
    images: Annotated[Path, typer.Option(help="Folder of images with one subfolder for each class.")],
    weights: Annotated[Path | None, typer.Option(help="Checkpoint: safetensors or .pth.")] = None,
    filter: Annotated[str, typer.Option(help="Filter of the anti-aliased copy: name, length or taps.")] = "bin4",
    limit: Annotated[int | None, typer.Option(help="Use at most this many images.", min=1)] = None,
    output: Output = Path("runs/audit"),
    seed: Seed = 0,
) -> None:
    """Measure how shift-sensitive a network is on your images, beside its anti-aliased copy."""
    from dealias.audit import run_audit

    with _progress() as on_progress:
        results = run_audit(
            model,
            images,
            output,
            weights=weights,
            filter=parse_filter(filter),
            limit=limit,
            seed=seed,
            on_progress=on_progress,
        )
    _show_results(results, output)


@app.command()
def info() -> None:
    """Print versions, devices and which backend of the operations is active."""
    import platform

    import torch

    import dealias
    from dealias import ops

    table = Table(show_header=False, box=None)
    table.add_row("dealias", dealias.__version__)
    table.add_row("python", platform.python_version())
    table.add_row("torch", torch.__version__)
    table.add_row("threads", str(torch.get_num_threads()))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    table.add_row("CUDA device", device)
    for name, state in ops.backends().items():
        table.add_row(f"backend {name}", state)
    Console().print(table)


def main() -> None:
    """Run the command line; exit with 0 (done), 1 (failed, with a message), 2 (wrong usage) or 130 (interrupted)."""
    errors = Console(stderr=True, highlight=False)

    def show_warning(message: Warning | str, *where: Any, **more: Any) -> None:
        errors.print(f"warning: {message}", style="yellow", markup=False, soft_wrap=True)

    warnings.showwarning = show_warning
    sys.path.insert(0, "")  # so that package.module:factory finds the modules of the current folder
    try:
        app()
    except (InputError, MissingExtraError, FloatingPointError, OSError) as error:
        errors.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
