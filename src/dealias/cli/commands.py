"""Import the commands, run one, and show its errors and warnings."""

from __future__ import annotations

import io
import sys
import traceback
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import metadata
from typing import Annotated, Any

import typer

from dealias.cli.common import app, say
from dealias.errors import InputError, MissingExtraError, printable, reason

_MODULES = (
    *("demo", "evaluate", "audit", "flicker", "report", "profile", "sites", "convert", "certify"),
    *("train", "finetune", "recipes", "repair", "bench", "models", "info"),
)
for _module in _MODULES:  # each adds its commands to the app; `dealias --help` lists them in this order
    import_module(f"dealias.cli.{_module}")


@app.callback()
def set_options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; works behind a command too.")
    ] = False,
) -> None:
    """Make convolutional networks stable under small shifts: measure, fix, train, see."""


def run_command(is_interrupted: Callable[[], bool]) -> None:
    """Run the command of `sys.argv` and exit with its code; after Ctrl-C, errors are raised as they are."""
    debug = "--debug" in sys.argv[1:]
    sys.argv = [word for word in sys.argv if word != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # paths may have bytes that are not Unicode

    def show_warning(message: Warning | str, *where: Any, **more: Any) -> None:
        say(f"warning: {printable(str(message))}", style="yellow", error=True)

    sys.path.insert(0, "")  # package.module:factory may be in the current folder
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            app()
    except (InputError, MissingExtraError, FloatingPointError, OSError, MemoryError) as error:
        if debug or is_interrupted():
            raise
        text = str(error) if str(error) else reason(error)
        say(f"error: {printable(text)}", style="red", error=True)
        sys.exit(1)
    except Exception:
        if is_interrupted():
            raise
        traceback.print_exc()
        say(f"This is a mistake of dealias. Please report it, with the lines above: {_address()}", error=True)
        sys.exit(1)


def _address() -> str:
    urls: list[str] = metadata("dealias").get_all("Project-URL") or []
    return next((url.partition(", ")[2] for url in urls if url.startswith("Issues")), "its issue tracker")
