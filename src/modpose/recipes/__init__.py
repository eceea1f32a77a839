"""Recipes: each published system as a few lines of configuration, and no code of its own."""

from __future__ import annotations

import difflib

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


def recipe_config(name: str) -> Options:
    """Return the options that a recipe sets.

    Raises
    ------
    InputError
        If there is no such recipe; names the nearest.
    """
    recipe = RECIPES.get(name)
    if recipe is None:
        near = difflib.get_close_matches(name[:SHOWN], RECIPES, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(RECIPES)}"
        raise InputError(f"--recipe: there is no recipe {shown(name)}; {hint}")
    return {"recipe": name} | recipe.options
