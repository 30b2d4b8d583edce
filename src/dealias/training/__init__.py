"""Training: recipes, runs that can be stopped and resumed, and the loop for data in memory."""

from dealias.training.config import Config
from dealias.training.in_memory import fit
from dealias.training.run import train
from dealias.training.settings import Settings, load_recipe, parse_overrides, recipe_data, recipe_names, recipe_text

__all__ = [
    "Config",
    "Settings",
    "fit",
    "load_recipe",
    "parse_overrides",
    "recipe_data",
    "recipe_names",
    "recipe_text",
    "train",
]
