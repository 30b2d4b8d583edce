"""Import the commands, run one, and show its errors and warnings."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from typing import Any

from rich.console import Console

from dealias.cli.common import app
from dealias.errors import InputError, MissingExtraError

_MODULES = (
    *("demo", "audit", "evaluate", "report", "profile", "sites", "convert"),
    *("train", "finetune", "recipes", "repair", "bench", "models", "info"),
)
for _module in _MODULES:  # each adds its commands to the app; `dealias --help` lists them in this order
    import_module(f"dealias.cli.{_module}")


def run_command() -> None:
    """Run the command of `sys.argv` and exit with its code."""
    errors = Console(stderr=True, highlight=False)

    def show_warning(message: Warning | str, *where: Any, **more: Any) -> None:
        errors.print(f"warning: {message}", style="yellow", markup=False, soft_wrap=True)

    sys.path.insert(0, "")  # package.module:factory may be in the current folder
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            app()
    except (InputError, MissingExtraError, FloatingPointError, OSError) as error:
        errors.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)
