"""Directives that print what the program itself says, so that the pages cannot drift from it.

``{cli-reference}``
    A section for every verb: its ``--help``.
``{option-reference}``
    A section for every class of options: name, default, meaning.
``{recipe-reference}``
    A section for every recipe: title, paper, description.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective


class Reference(SphinxDirective):
    """Base: sections made of a title and Markdown or literal text."""

    def section(self, title: str, *children: nodes.Node) -> nodes.section:
        name = nodes.make_id(title.replace("+", "-plus"))
        section = nodes.section(ids=[name], names=[nodes.fully_normalize_name(title)])
        section += nodes.title("", "", nodes.literal("", title))
        section += list(children)
        self.state.document.note_implicit_target(section)
        return section

    def markdown(self, text: str) -> list[nodes.Node]:
        container = nodes.container()
        lines = text.splitlines()
        self.state.nested_parse(StringList(lines, source=self.get_source_info()[0]), 0, container)
        return container.children


class CliReference(Reference):
    def run(self) -> list[nodes.Node]:
        from typer.main import get_command

        from modpose.cli import app

        return [
            self.section(name, nodes.literal_block(text, text, language="text"))
            for name, text in _help_texts(get_command(app), "modpose")
        ]


def _help_texts(command: Any, name: str) -> Iterator[tuple[str, str]]:
    subcommands = getattr(command, "commands", {})
    if not subcommands:
        context = command.make_context(name, [], resilient_parsing=True, max_content_width=88)
        yield name, command.get_help(context)
    for key, subcommand in subcommands.items():
        yield from _help_texts(subcommand, f"{name} {key}")


class OptionReference(Reference):
    def run(self) -> list[nodes.Node]:
        from pydantic import BaseModel

        from modpose import config

        sections = []
        for name in ("DataConfig", "ModelConfig", "TrainConfig", *_other_sections(config)):
            section: type[BaseModel] = getattr(config, name)
            documented = ModuleAnalyzer.for_module(section.__module__).find_attr_docs()
            lines = []
            for option, field in section.model_fields.items():
                kind = str(section.__annotations__[option]).removeprefix("Annotated")
                meaning = " ".join(documented.get((name, option), []))
                default = _show(field.get_default())
                lines.append(f"- `{option}` (`{kind}`, default {default}): {meaning}".rstrip(": "))
            about = (section.__doc__ or "").partition("\n\n")[0]
            sections.append(self.section(name, *self.markdown(about + "\n\n" + "\n".join(lines))))
        return sections


def _other_sections(config: Any) -> list[str]:
    first = {"DataConfig", "ModelConfig", "TrainConfig", "Frozen", "Config"}
    first |= {"EncoderSection", "FieldSection"}
    return [
        name
        for name, value in vars(config).items()
        if isinstance(value, type) and issubclass(value, config.Frozen) and name not in first
    ]


def _show(default: object) -> str:
    return f"`{type(default).__name__}`" if hasattr(default, "model_fields") else f"`{default}`"


class RecipeReference(Reference):
    def run(self) -> list[nodes.Node]:
        from modpose.recipes import RECIPES

        return [
            self.section(
                name,
                *self.markdown(f"{recipe.title}. {recipe.description}\n\n*{recipe.paper}*"),
            )
            for name, recipe in RECIPES.items()
        ]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("cli-reference", CliReference)
    app.add_directive("option-reference", OptionReference)
    app.add_directive("recipe-reference", RecipeReference)
    return {"parallel_read_safe": True}
