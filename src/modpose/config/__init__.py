"""The whole configuration of a run: frozen, validated, saved as ``config.yaml``.

Every published system is a value of :class:`Config` (see :mod:`modpose.recipes`); nothing else
selects behaviour.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from modpose.config.data import (
    DataConfig,
)
from modpose.config.encoders import (
    ConvEncoderConfig,
    EncoderConfig,
    HarmonicEncoderConfig,
    MlpEncoderConfig,
    OctahedralEncoderConfig,
    OrbitEncoderConfig,
    PolarEncoderConfig,
    PrincipalEncoderConfig,
    TableEncoderConfig,
)
from modpose.config.fields import (
    BasisFieldConfig,
    ConvFieldConfig,
    DenseFieldConfig,
    FieldConfig,
    FourierFeatures,
    FourierFieldConfig,
    FrontedFieldConfig,
    ImplicitFieldConfig,
    PrincipalFieldConfig,
)
from modpose.config.model import (
    BernoulliConfig,
    GaussianConfig,
    LikelihoodConfig,
    ModelConfig,
    PoseRefinementConfig,
    RotationConfig,
    ShiftConfig,
    SpectralConfig,
)
from modpose.config.section import Activation, Frozen
from modpose.config.start import AlignmentStartConfig, SubspacesStartConfig
from modpose.config.train import (
    AugmentConfig,
    CauchyConfig,
    CellsConfig,
    ContrastConfig,
    CosineConfig,
    Schedule,
    SimilarityConfig,
    SoftCellsConfig,
    TopCellsConfig,
    TrainConfig,
)
from modpose.errors import InputError

__all__ = [
    "Activation",
    "AlignmentStartConfig",
    "AugmentConfig",
    "BasisFieldConfig",
    "BernoulliConfig",
    "CauchyConfig",
    "CellsConfig",
    "Config",
    "ContrastConfig",
    "ConvEncoderConfig",
    "ConvFieldConfig",
    "CosineConfig",
    "DataConfig",
    "DenseFieldConfig",
    "EncoderConfig",
    "FieldConfig",
    "FourierFeatures",
    "FourierFieldConfig",
    "FrontedFieldConfig",
    "Frozen",
    "GaussianConfig",
    "HarmonicEncoderConfig",
    "ImplicitFieldConfig",
    "LikelihoodConfig",
    "MlpEncoderConfig",
    "ModelConfig",
    "OctahedralEncoderConfig",
    "OrbitEncoderConfig",
    "PolarEncoderConfig",
    "PoseRefinementConfig",
    "PrincipalEncoderConfig",
    "PrincipalFieldConfig",
    "RotationConfig",
    "Schedule",
    "ShiftConfig",
    "SimilarityConfig",
    "SoftCellsConfig",
    "SpectralConfig",
    "SubspacesStartConfig",
    "TableEncoderConfig",
    "TopCellsConfig",
    "TrainConfig",
    "dump_config",
    "merge",
    "parse_config",
    "read_yaml",
    "set_option",
]


class Config(Frozen):
    """Everything that decides a run."""

    recipe: str
    seed: int = Field(0, ge=0)
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()


# --- reading, merging, writing ----------------------------------------------------------------


def parse_config(values: dict[str, Any], where: str) -> Config:
    """Validate nested ``values``; an error names ``where``, the option, found and expected."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        option, kind = _option_of(first["loc"], values)
        if first["type"] == "extra_forbidden":
            of_kind = f" where {option.rpartition('.')[0]}.kind is {kind}" if kind else ""
            raise InputError(f"{where}: there is no option '{option}'{of_kind}") from None
        expected = first["msg"]
        if first["type"] == "union_tag_not_found":
            expected = f"its kind, too (--set {option}.kind=...)"
        raise InputError.of(where, option, repr(first.get("input")), expected) from None


def _option_of(location: tuple[int | str, ...], values: Any) -> tuple[str, str]:
    """Return the option as users write it, and the kind of the last section that has kinds."""
    names, kind = [], ""
    for part in location:
        if isinstance(values, dict) and part not in values and values.get("kind") == part:
            kind = str(part)
            continue
        names.append(str(part))
        values = values.get(part) if isinstance(values, dict) else None
    return ".".join(names), kind


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a configuration file (a mapping) without running anything that it contains."""
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such configuration file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not readable as YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(values, dict):
        raise InputError.of(path, "the file", type(values).__name__, "a mapping of options")
    return values


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Lay ``over`` on ``base``, section by section; a section of another ``kind`` replaces it."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            # data.kind is an option like others; elsewhere another kind has other options
            same_kind = key == "data" or "kind" not in value or value["kind"] == old.get("kind")
            out[key] = merge(old, value) if same_kind else dict(value)
        else:
            out[key] = value
    return out


def set_option(values: dict[str, Any], assignment: str) -> dict[str, Any]:
    """Apply one ``section.option=value`` (the value is YAML) and return the new mapping."""
    name, equals, text = assignment.partition("=")
    if not equals or not name:
        raise InputError.of("--set", "the assignment", repr(assignment), "section.option=value")
    nested: Any = yaml.safe_load(text)
    for part in reversed(name.strip().split(".")):
        nested = {part: nested}
    return merge(values, nested)


def dump_config(config: Config) -> str:
    """Return the complete, resolved configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
