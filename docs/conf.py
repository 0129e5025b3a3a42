"""How Sphinx makes a site of these pages: `make docs`, which writes `build/docs`.

Links are checked, and search works without a network.
"""

# ruff: noqa: INP001 - no package: Sphinx reads this file

from __future__ import annotations

import builtins
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

import vlmill

HERE = Path(__file__).parent
COMMANDS = HERE / "generated" / "commands.md"  # made from the code, and not kept

project, author = "vlmill", "vlmill contributors"
copyright = author  # noqa: A001 - the name that Sphinx reads
release = version = vlmill.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["conf.py"]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"vlmill {release}"
html_show_sourcelink = False
html_copy_source = False

default_role = "code"  # of names in docstrings
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"  # fields of dataclasses are said once, as attributes
napoleon_numpy_docstring = False
napoleon_use_ivar = True

COMMANDS.parent.mkdir(exist_ok=True)
subprocess.run(  # noqa: S603 - a command of ours
    [sys.executable, "-m", "typer", "vlmill.pipeline.cli", "utils", "docs", "--name", "vlmill", "--output", COMMANDS],
    check=True,
    stdout=subprocess.DEVNULL,
)
COMMANDS.write_text(COMMANDS.read_text(encoding="utf-8").replace("&amp;", "&"), encoding="utf-8")  # typer escapes them


NEEDS = {
    "network": "reads what is elsewhere",
    "cluster": "needs several machines, a GPU or a bucket",
    "data": "names files of yours",
    "slow": "takes minutes",
}
"""What stands behind the language of a block that no test runs -> what a reader is told."""


def name_files(_app: Sphinx, _page: str, source: list[str]) -> None:
    """Name files of the repository that are no pages of the site, pages by their titles, and what a block needs."""
    text = re.sub(r"\[`?([^]`]+)`?\]\(\.\./[^)]+\)", r"`\1`", source[0])
    text = re.sub(r"\[([\w-]+\.md)\]\((\1(#[\w-]+)?)\)", r"[](\2)", text)
    source[0] = re.sub(
        r"^```(\w+) (\w+)$", lambda found: f"*{NEEDS[found[2]]}:*\n\n{found[0]}", text, flags=re.MULTILINE
    )


def mark_examples(_app: Sphinx, _what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Have indented lines of docstrings, which are examples there, drawn as code."""
    marked, before = list[str](), ""
    for line, after in pairwise([*lines, ""]):
        marked.append(line)
        if not line.strip() and after.startswith("    ") and before and not before.startswith(" "):
            marked += ["::", ""]
        before = line if line.strip() else before
    lines[:] = marked


def unlink_builtins(_app: Sphinx, page: nodes.document) -> None:
    """Leave types of Python as words: `bytes` is also what some fields are called, and would be a link to one."""
    for link in list(page.findall(addnodes.pending_xref)):
        if link.get("reftype") == "class" and hasattr(builtins, link["reftarget"]):
            link.replace_self(link.children)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", mark_examples, priority=100)  # before napoleon makes sections of them
    app.connect("doctree-read", unlink_builtins)
    app.connect("source-read", name_files)
