"""Training: recipes, runs that survive, and the loop for data in memory."""

from dealias.training.loop import fit
from dealias.training.repair import RepairResult, repair
from dealias.training.settings import (
    Settings,
    load_recipe,
    parse_overrides,
    recipe_data,
    recipe_names,
    recipe_text,
)
from dealias.training.train import Config, train

__all__ = [
    "Config",
    "RepairResult",
    "Settings",
    "fit",
    "load_recipe",
    "parse_overrides",
    "recipe_data",
    "recipe_names",
    "recipe_text",
    "repair",
    "train",
]
