"""The command line reads modules of the library when it first uses them."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


START = "import sys\nfrom modpose.cli.lazily import lazily\n"


def test_a_module_is_read_when_something_in_it_is_asked_for() -> None:
    code = START + (
        "with lazily():\n    from modpose.observe import ctf\n"
        "print('torch' in sys.modules)\nctf.ctf_2d\nprint('torch' in sys.modules)\n"
        "from modpose.observe.ctf import ctf_2d\nprint(ctf_2d is ctf.ctf_2d)"
    )
    assert run(code).split() == ["False", "True", "True"]


def test_a_package_and_a_module_within_may_import_each_other() -> None:
    """The package of reports imports the module, and the module other modules of the package."""
    code = START + (
        "with lazily():\n    from modpose.report import build\n"
        "print('torch' in sys.modules)\nprint(build.build_report.__name__)\n"
        "from modpose.report import build_report\nprint(build_report is build.build_report)"
    )
    assert run(code).split() == ["False", "build_report", "True"]


@pytest.mark.parametrize(
    "statement",
    ["from modpose.observe.ctf import ctf_2d", "from modpose.observe import no_such_module"],
)
def test_what_would_have_to_be_read_at_once_is_an_error(statement: str) -> None:
    code = START + (
        f"try:\n    with lazily():\n        {statement}\nexcept ImportError:\n    print('refused')"
    )
    assert run(code) == "refused"
