"""`dealias recipes`: the recipes of `train` and `finetune`."""

from __future__ import annotations

from typing import Annotated

import typer

from dealias.cli.common import app, show_table


@app.command("recipes")
def list_recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe, as it is written.")] = None,
) -> None:
    """List the recipes, or print one; --set KEY=VALUE overrides any of its settings."""
    from dealias.training.settings import recipe_names, recipe_text

    if name is not None:
        print(recipe_text(name), end="")
        return
    rows = ((each, recipe_text(each).splitlines()[0].removeprefix("# ")) for each in recipe_names())
    show_table(("recipe", ""), rows, box=None)
