"""Each section refuses, in one sentence and without torch, what it cannot work with."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from modpose.config import Config, EncoderSection, MlpEncoderConfig, ModelConfig, parse_config
from modpose.config.facts import Facts, check_config
from modpose.errors import InputError
from modpose.options import resolve
from modpose.recipes import RECIPES, recipe_config


def facts(recipe: str, *settings: str, **known: Any) -> Facts:
    config = resolve(recipe_config(recipe), assignments=settings)
    return Facts(config, **{"shape": (32, 32), "channels": 1, **known})


CUBE = {"shape": (16, 16, 16)}


@pytest.mark.parametrize(
    ("recipe", "settings", "known", "says"),
    [
        ("modpose", [], CUBE, "model.encoder.kind is polar, expected octahedral, mlp"),
        ("vae", ["model.wedge=-60,60"], {}, "model.wedge is -60,60, expected off for images"),
        ("vae", ["model.z_dim=0"], {}, "model.z_dim is 0, expected 1 or more"),
        ("target-vae", ["model.encoder.kernel=99"], {}, "kernel is 99, expected at most 42"),
        ("modpose-3d", [], {}, "the data is images, expected volumes with the octahedral"),
        ("modpose-3d", [], {"shape": (16, 16, 8)}, "1 of 16x16x8, expected 1, cubes"),
        ("modpose-3d", ["train.start.classes=99"], CUBE, "classes with their motions is 198"),
        ("cryodrgn", ["model.poses=inferred"], {}, "model.poses is inferred, expected given"),
        ("cryodrgn", ["model.likelihood.kind=gaussian"], {}, "expected spectral"),
        ("vae", ["train.augment.rotate=any"], {"ctf": True}, "none for images with a contrast"),
        ("vae", [], {"affinity": True}, "train.gamma.end is 0.0, expected a weight"),
        ("vae", ["train.gamma.end=1"], {"affinity": False}, "the affinity matrix is missing"),
        ("3d-spvae++", ["model.field.kernel=4"], CUBE, "model.field.kernel is 4, expected an odd"),
        ("modpose-posed", [], {"n_train": 12}, "images to train on is 12, expected more than 12"),
    ],
)
def test_a_section_says_what_it_cannot_do(
    recipe: str, settings: list[str], known: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError) as refused:
        check_config(facts(recipe, *settings, **known))
    assert says in str(refused.value)


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_nothing_is_refused_before_the_data_are_known(recipe: str) -> None:
    check_config(Facts(parse_config(recipe_config(recipe), recipe)))


def test_a_section_of_another_package_checks_itself() -> None:
    class Picky(EncoderSection):
        kind: str = "picky"

        def check(self, facts: Facts) -> None:
            raise facts.refusal("model.encoder.kind", self.kind, "another")

    config = Config(recipe="mine", model=ModelConfig(encoder=Picky()))
    with pytest.raises(InputError, match="kind is picky, expected another"):
        check_config(Facts(config))
    check_config(Facts(Config(recipe="mine", model=ModelConfig(encoder=MlpEncoderConfig()))))


def test_checks_need_no_torch() -> None:
    code = (
        "import sys\nfrom modpose.config import Config\n"
        "from modpose.config.facts import Facts, check_config\n"
        "check_config(Facts(Config(recipe='x'), (8, 8), 1, 10))\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
