"""Recipes: each published system as a few lines of configuration, without code."""

from __future__ import annotations

import difflib

from modpose.config.system import installed_systems
from modpose.errors import SHOWN, InputError, shown
from modpose.recipes.affinity_vae import AFFINITY_VAE
from modpose.recipes.baselines import BASELINES
from modpose.recipes.explicit_latents import EXPLICIT_LATENTS
from modpose.recipes.modpose import MODPOSE
from modpose.recipes.recipe import Options, Recipe
from modpose.recipes.spatial_vae import SPATIAL_VAE
from modpose.recipes.subtomograms import SUBTOMOGRAMS
from modpose.recipes.target_vae import TARGET_VAE

RECIPES: dict[str, Recipe] = (
    MODPOSE | BASELINES | SPATIAL_VAE | TARGET_VAE | SUBTOMOGRAMS | EXPLICIT_LATENTS | AFFINITY_VAE
)

DEFAULT_RECIPE = "modpose"
DEFAULT_FOR_POSED = "modpose-posed"
DEFAULT_FOR_VOLUMES = "modpose-3d"


def all_recipes() -> dict[str, Recipe]:
    """Return modpose's recipes and those of other packages, by name; modpose's own come first."""
    others = {
        name: recipe for system in installed_systems() for name, recipe in system.recipes.items()
    }
    return others | RECIPES if others else RECIPES


def recipe_config(name: str) -> Options:
    """Return the options that a recipe sets.

    Raises
    ------
    InputError
        If there is no such recipe; the message names the most similar one.
    """
    recipe = RECIPES.get(name) or all_recipes().get(name)
    if recipe is None:
        known = all_recipes()
        near = difflib.get_close_matches(name[:SHOWN], known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(known)}"
        raise InputError(f"--recipe: there is no recipe {shown(name)}; {hint}")
    return {"recipe": name} | recipe.options
