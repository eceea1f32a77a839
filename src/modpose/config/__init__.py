"""The whole configuration of a run: frozen, validated, saved as ``config.yaml``.

Every published system is a value of :class:`Config` (see :mod:`modpose.recipes`).
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError, model_validator

from modpose.config.data import (
    DataConfig,
)
from modpose.config.encoders import (
    OWN_ENCODERS,
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
    OWN_FIELDS,
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
    ReflectionConfig,
    RotationConfig,
    ScaleConfig,
    ShiftConfig,
    SpectralConfig,
)
from modpose.config.section import (
    Activation,
    CellRole,
    EncoderSection,
    FieldSection,
    Frozen,
    Seed,
    kind_of,
)
from modpose.config.start import AlignmentStartConfig, SubspacesStartConfig
from modpose.config.system import Recipe, Section, System, section_of
from modpose.config.train import (
    OVER_Z_DIM,
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
from modpose.config.wording import expectation
from modpose.config.yaml_text import DEEPEST, dump_yaml, parse_yaml, read_yaml
from modpose.errors import SHOWN, InputError, shown

__all__ = [
    "Activation",
    "AlignmentStartConfig",
    "AugmentConfig",
    "BasisFieldConfig",
    "BernoulliConfig",
    "CauchyConfig",
    "CellRole",
    "CellsConfig",
    "Config",
    "ContrastConfig",
    "ConvEncoderConfig",
    "ConvFieldConfig",
    "CosineConfig",
    "DataConfig",
    "DenseFieldConfig",
    "EncoderConfig",
    "EncoderSection",
    "FieldConfig",
    "FieldSection",
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
    "Recipe",
    "ReflectionConfig",
    "RotationConfig",
    "ScaleConfig",
    "Schedule",
    "ShiftConfig",
    "SimilarityConfig",
    "SoftCellsConfig",
    "SpectralConfig",
    "SubspacesStartConfig",
    "System",
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
    """All options of a run."""

    recipe: str
    seed: Seed = 0
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="before")
    @classmethod
    def _write_out_beta(cls, values: Any) -> Any:
        """Replace ``train.beta.end=1/z_dim`` by a number."""
        train, model = (values.get(part, {}) for part in ("train", "model"))
        beta = train.get("beta") if isinstance(train, dict) else None
        if not isinstance(beta, dict) or beta.get("end") != OVER_Z_DIM:
            return values
        default = ModelConfig.model_fields["z_dim"].default
        z_dim = model.get("z_dim", default) if isinstance(model, dict) else default
        if not isinstance(z_dim, int) or z_dim < 0:
            return values  # z_dim is refused
        end = 1 / max(z_dim, 1)
        return values | {"train": train | {"beta": beta | {"end": end}}}


# --- reading, merging, writing ----------------------------------------------------------------


def parse_config(values: dict[str, Any], where: str) -> Config:
    """Validate nested ``values``; an error names ``where``, the option, found and expected."""
    try:
        return Config.model_validate(_with_sections_of_others(values, where))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option, kind = _option_of(first["loc"], values)
        if first["type"] == "extra_forbidden":
            of_kind = f" where {option.rpartition('.')[0]}.kind is {kind}" if kind else ""
            raise InputError(f"{where}: there is no option {shown(option)}{of_kind}") from None
        if first["type"] == "missing":
            raise InputError(f"{where}: the option {option} is missing") from None
        expected = expectation(first)
        if first["type"] == "number":
            named, found = first["ctx"]["field"], first["ctx"]["value"]
            raise InputError.of(where, f"{option}.{named}".lstrip("."), found, expected) from None
        if first["type"] == "union_tag_not_found":
            expected = f"its kind, too (--set {option}.kind=...)"
        raise InputError.of(where, option, shown(first.get("input")), expected) from None


def _with_sections_of_others(values: dict[str, Any], where: str) -> dict[str, Any]:
    """Make the sections whose kinds come from other packages."""
    model = values.get("model")
    if not isinstance(model, dict):
        return values
    made = {}
    for name, own in (("encoder", OWN_ENCODERS), ("field", OWN_FIELDS)):
        options = model.get(name)
        kind = kind_of(options)
        if not isinstance(options, dict) or not isinstance(kind, str) or kind in own:
            continue
        section = section_of(name, kind)
        if section is not None:
            made[name] = _section(section, options, f"{where}: model.{name}")
    return values if not made else {**values, "model": {**model, **made}}


def _section(section: type[Section], options: dict[str, Any], where: str) -> Section:
    try:
        return section.model_validate(options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise InputError(f"{where}: there is no option {shown(option)}") from None
        found = shown(first.get("input"))
        raise InputError.of(f"{where}.{option}", "the value", found, expectation(first)) from None


def _option_of(location: tuple[int | str, ...], values: Any) -> tuple[str, str]:
    """Return the option as users write it, and the kind of the last section with kinds."""
    names, kind = [], ""
    for part in location:
        if isinstance(values, dict) and part not in values and values.get("kind") == part:
            kind = str(part)
            continue
        names.append(str(part))
        values = values.get(part) if isinstance(values, dict) else None
    return ".".join(names), kind


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge ``over`` into ``base``; a section with another ``kind`` replaces the old one."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            # data.kind is a normal option; elsewhere another kind has other options
            same_kind = key == "data" or "kind" not in value or value["kind"] == old.get("kind")
            out[key] = merge(old, value) if same_kind else dict(value)
        else:
            out[key] = value
    return out


def set_option(values: dict[str, Any], assignment: str) -> dict[str, Any]:
    """Apply one ``section.option=value`` (the value is YAML) and return the new mapping."""
    name, equals, text = assignment.partition("=")
    if not equals or not name:
        raise InputError.of("--set", "the assignment", shown(assignment), "section.option=value")
    if name.count(".") > DEEPEST:
        raise InputError(f"--set: there is no option {shown(name)}")
    nested: Any = parse_yaml(text, f"--set {assignment[:SHOWN]}")
    for part in reversed(name.strip().split(".")):
        nested = {part: nested}
    return merge(values, nested)


def dump_config(config: Config) -> str:
    """Return the complete, resolved configuration as YAML."""
    return dump_yaml(config.model_dump(mode="json"))
