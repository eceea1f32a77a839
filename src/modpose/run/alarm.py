"""An alarm: one or two sentences about data or a result that looks wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modpose.files.text import in_shell


@dataclass(frozen=True)
class Alarm:
    """Something that looks wrong.

    Attributes
    ----------
    name
        Which alarm: ``contrast``, ``ctf``, ``wedge``, ``neighbours``, ``constant``, ``repeated``,
        ``poses``, ``content`` or ``convergence``.
    sentence
        One or two sentences for the user: what was found, and what to do.
    """

    name: str
    sentence: str

    def __str__(self) -> str:
        """Return the sentence."""
        return self.sentence

    def of(self, run: Path) -> str:
        """Return the sentence with its commands for this run, as a shell takes them."""
        return re.sub(r"\bRUN\b", lambda _: in_shell(run), self.sentence)

    def as_dict(self) -> dict[str, str]:
        """Return what ``environment.json`` stores."""
        return {"name": self.name, "sentence": self.sentence}


def stored_alarms(environment: Mapping[str, Any]) -> tuple[Alarm, ...]:
    """Read the alarms that ``environment.json`` holds; none in runs of older versions."""
    found = environment.get("alarms")
    if not isinstance(found, list):
        return ()
    return tuple(
        Alarm(str(one["name"]), str(one["sentence"]))
        for one in found
        if isinstance(one, dict) and {"name", "sentence"} <= one.keys()
    )
