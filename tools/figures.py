"""Check the links of the documentation, and what made each of its figures.

    python -m tools.figures                                    # what make check runs
    python -m tools.figures --made demo.png README.md 'make demo'   # after a figure was made again

``docs/images/made.json`` says of each figure by which commands of which page it was made, and by
which version.  The check fails where a link leads nowhere, where a figure is not listed, where its
page no longer has the commands, or where the version is another one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote

from modpose import __version__

PICTURES = Path("docs/images")
MADE = PICTURES / "made.json"
LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+(?:\([^()\s]*\)[^()\s]*)?)\)")
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^(```+|~~~+).*?^\1", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Made:
    """How a figure was made.

    Attributes
    ----------
    page
        Page that has the commands.
    commands
        The commands as they stand there; or ``cells SUM``, the checksum of all cells of the page.
    modpose
        The version.
    """

    page: str
    commands: str
    modpose: str

    @classmethod
    def now(cls, page: Path, commands: str) -> Made:
        """Record a figure that this version has made."""
        return cls(page.as_posix(), commands, __version__)

    def problem(self) -> str | None:
        """Say why the figure has to be made again; None if it has not."""
        page = Path(self.page)
        if not page.is_file():
            return f"its page {self.page} is missing"
        if self.modpose != __version__:
            return f"was made by modpose {self.modpose}, this is {__version__}"
        if self.commands.startswith("cells "):
            return None if self.commands == cells_of(page) else f"{self.page} has other cells now"
        text = _joined(page.read_text(encoding="utf-8"))
        there = all(line in text for line in _joined(self.commands).splitlines())
        return None if there else f"its command is no longer in {self.page}: {self.commands}"


def _joined(text: str) -> str:
    """Join lines that end with a backslash."""
    return re.sub(r"\s*\\\n\s*", " ", text)


def cells_of(page: Path) -> str:
    """Return the checksum of the cells of a tutorial."""
    cells = "\n".join(CELL.findall(page.read_text(encoding="utf-8")))
    return f"cells {hashlib.sha256(cells.encode()).hexdigest()[:16]}"


def read_made() -> dict[str, Made]:
    """Read how each figure was made."""
    return {name: Made(**values) for name, values in json.loads(MADE.read_text()).items()}


def write_made(made: dict[str, Made]) -> None:
    """Write how each figure was made."""
    table = {name: asdict(made[name]) for name in sorted(made)}
    MADE.write_text(json.dumps(table, indent=2) + "\n")


def broken_links(page: Path) -> list[str]:
    """Return the links of a page to files that are not there."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = [link for link in LINK.findall(text) if not re.match(r"[a-z]+:|#|\{", link)]
    names = [unquote(target.partition("#")[0]) for target in targets]
    return [name for name in names if name and not _exists(page.parent, name)]


def _exists(folder: Path, name: str) -> bool:
    return (folder / name).exists() or (folder / f"{name}.md").exists()


def problems() -> list[str]:
    """Collect everything that is wrong, one sentence each."""
    names = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True)
    files = [Path(name) for name in names.stdout.split("\0") if name]
    pages = [path for path in files if path.suffix == ".md" and path.is_file()]
    found = [f"{page}: no file {name}" for page in pages for name in broken_links(page)]
    made = read_made()
    shown = {path.relative_to(PICTURES).as_posix() for path in files if PICTURES in path.parents}
    shown.discard(MADE.name)
    found += [f"docs/images/{name}: not listed in {MADE}" for name in sorted(shown - set(made))]
    found += [f"{MADE}: there is no figure {name}" for name in sorted(set(made) - shown)]
    for name in sorted(set(made) & shown):
        why = made[name].problem()
        found += [] if why is None else [f"docs/images/{name}: {why}"]
    return found


def main() -> None:
    """Check, or record a figure."""
    parser = argparse.ArgumentParser(prog="python -m tools.figures", description=__doc__)
    parser.add_argument("--made", nargs=3, metavar=("FIGURE", "PAGE", "COMMANDS"))
    arguments = parser.parse_args()
    if arguments.made is not None:
        figure, page, commands = arguments.made
        write_made(read_made() | {figure: Made.now(Path(page), commands)})
    found = problems()
    print("\n".join(found) or "all links and figures are in order")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
