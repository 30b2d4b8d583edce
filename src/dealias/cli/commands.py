"""All commands, and how their errors and warnings are shown."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from rich.console import Console

from dealias.cli import audit, bench, convert, demo, evaluate, finetune, info, models, profile, recipes, repair, train
from dealias.cli.common import app
from dealias.errors import InputError, MissingExtraError

__all__ = [
    "audit",
    "bench",
    "convert",
    "demo",
    "evaluate",
    "finetune",
    "info",
    "models",
    "profile",
    "recipes",
    "repair",
    "run_command",
    "train",
]


def run_command() -> None:
    """Run the command that `sys.argv` names, and exit with its code."""
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
