"""Configuration of the documentation."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "modpose"
author = "The modpose developers"
copyright = "The modpose developers"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
    "reference",
    "layers",
    "code_cell",
]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "modpose"
html_static_path = ["_static"]
html_css_files = ["modpose.css"]
html_math_renderer = "mathml"
smartquotes = False  # commands are copied from these pages
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
autodoc_default_options = {"exclude-members": "__init__, __new__, model_config"}
napoleon_google_docstring = False
