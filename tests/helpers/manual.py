"""The blocks of code in the README and the manual: what they are, and how a test runs or checks each.

A block is fenced and names its language. Further words after the language say why a test does not run it:

    network   it reads what is elsewhere, such as the Hugging Face Hub or an index of packages
    cluster   it needs several machines, a GPU or a bucket
    data      it names files of the reader, or models that are not shipped
    slow      it takes minutes

Such a block is checked: its syntax, its commands and their options, and its keys. `text` is what commands print, trees
of files and the like, and holds no command; `{toctree}` is the site's. `console` has commands behind `$` with what they
print, where a line `...` stands for lines that are left out.
"""

from __future__ import annotations

import ast
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from textwrap import dedent
from typing import Any

import typer

import vlmill
from tests.helpers.small import vlmill as run_vlmill
from vlmill.pipeline.cli import app
from vlmill.pipeline.core.yaml_format import parse_yaml

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "recipes/README.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
WHY_NOT = ("network", "cluster", "data", "slow")
"""Why a block is checked and not run."""
LANGUAGES = ("sh", "console", "python", "yaml", "text", "{toctree}")
USAGE_ERROR: Any = typer.BadParameter.__base__
"""What the parser raises for an option or command that does not exist."""
FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
COMMAND = typer.main.get_command(app)
OTHERS = (
    ".",
    "aws",
    "cat",
    "cd",
    "export",
    "git",
    "jq",
    "pre-commit",
    "pytest",
    "ray",
    "sbatch",
    "kubectl",
    "sed",
    "ssh",
    "tail",
    "tensorboard",
    "time",
    "uv",
)
"""Programs of others whose arguments are not looked at."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    marks: tuple[str, ...]
    code: str

    @property
    def is_run(self) -> bool:
        """Whether a test runs it."""
        return self.language in {"sh", "console", "python"} and not self.marks

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def list_blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for fence in FENCE.finditer(text):
        language, *marks = fence[2].split() or [""]
        line = text[: fence.start()].count("\n") + 1
        found.append(Block(page, line, language, tuple(marks), dedent(fence[3])))
    return found


def list_bare_blocks(page: Path) -> list[str]:
    """Blocks that are indented in place of fenced: the first line of each."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return re.findall(r"(?:^\n)^ {4}(?! *[-*\d|])(\S.*)$", text, re.MULTILINE)


def list_lines(block: Block) -> list[str]:
    """The command lines of a block, comments and continued lines taken in."""
    code = block.code
    if block.language == "console":
        code = "\n".join(line[2:] for line in code.splitlines() if line.startswith("$ "))
    whole = code.replace("\\\n", " ").splitlines()
    return [line for line in whole if line.strip() and not line.lstrip().startswith("#")]


# How a block is run


def run_shell(line: str, folder: Path) -> str:
    """Run a line in a folder, which is also where this process stands; what it printed on standard output.

    A plain line of `vlmill` is run in this process by the function behind the console command, anything else by bash.
    """
    words = shlex.split(line, comments=True)
    if words[:2] == ["vlmill", "explore"]:
        return serve_run(words[1:], folder)
    if Path(words[0]).name == "vlmill" and not {"|", "&&", ";"} & set(words):
        *words, target = [*words, ""] if ">" not in words else [*words[: words.index(">")], words[-1]]
        if words[1] == "build" and not {"--workers", "--ray"} & set(words):
            words = [*words, "--workers", "0"]  # processes of their own would cost more than the work
        printed = StringIO()
        with redirect_stdout(printed):
            status = run_vlmill(*(word.replace("$PWD", str(folder)) for word in words[1:]))
        assert status == 0, f"{line} ended with {status}"
        if target:
            (folder / target).write_text(printed.getvalue())
        return printed.getvalue()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{line} ended with {done.returncode}: {done.stderr}"
    return done.stdout


def serve_run(words: list[str], folder: Path) -> str:
    """Start the viewer at a free port, wait for its address, and end it as Ctrl-C does."""
    words = words[: words.index("--port")] if "--port" in words else words
    command = [sys.executable, "-c", "from vlmill.pipeline.cli import main; main()", *words]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        printed = ""
        try:
            for line in server.stdout:
                printed += line
                if "http://127.0.0.1:" in line:
                    break
        finally:
            server.send_signal(signal.SIGINT)
    assert "http://127.0.0.1:" in printed
    return printed


def run_console(block: Block, folder: Path) -> None:
    """Run the commands of a block, and compare what each prints with what stands behind it."""
    for part in re.split(r"^\$ ", block.code, flags=re.MULTILINE)[1:]:
        line, _, shown = part.partition("\n")
        printed = [text.rstrip() for text in run_shell(line, folder).splitlines()]
        assert not find_difference(shown.rstrip().splitlines(), printed), f"{block}: {line} prints\n" + "\n".join(
            printed
        )


def find_difference(shown: list[str], printed: list[str]) -> str:
    """The first line that is shown and was not printed there; `...` stands for any lines. Empty if there is none."""
    place, skips = 0, False
    for line in shown:
        if line.strip() == "...":
            skips = True
            continue
        rest = printed[place:] if skips else printed[place : place + 1]
        if line not in rest:
            return line
        place, skips = place + rest.index(line) + 1, False
    return ""


# How a block is checked


def check_shell(block: Block) -> int:
    """Check the lines of a block without running them: syntax, programs, commands and options; how many lines."""
    lines = list_lines(block)
    syntax = subprocess.run(["bash", "-n"], input="\n".join(lines), capture_output=True, text=True, check=False)
    assert not syntax.returncode, f"{block}: {syntax.stderr}"
    for line in lines:
        for words in split_commands(line):
            check_words(words)
    return len(lines)


def split_commands(line: str) -> Iterator[list[str]]:
    """The words of each command of a line, without variables in front and files behind `>`."""
    words: list[str] = []
    for word in [*shlex.split(line, comments=True), "&&"]:
        if word in {"|", "&&", "||", ";", "&"}:
            while words and re.match(r"[A-Z_]+=", words[0]):
                words = words[1:]
            if words:
                yield words[: words.index(">")] if ">" in words else words
            words = []
        else:
            words.append(word)


def check_words(words: list[str]) -> None:
    """Check the words of a command: that the program is a known one, and its arguments where it is of this project."""
    name, rest = Path(words[0]).name or words[0], words[1:]
    if name == "vlmill":
        parse_command(rest)
    elif name == "torchrun":
        parse_command(rest[rest.index("vlmill.pipeline.cli") + 1 :])
    elif name == "make":
        targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        named = {word for word in rest if "=" not in word}
        assert named <= targets, f"{named - targets} are no targets of the Makefile, which has {sorted(targets)}"
    elif name == "pip":
        check_extras(rest)
    elif name in {"python", "python3"}:
        check_python(rest)
    else:
        assert name in OTHERS, f"{name} is no program that a test knows"


def parse_command(words: list[str]) -> None:
    """Parse the words behind `vlmill` as the console command does, and run nothing."""
    try:
        context = COMMAND.make_context("vlmill", list(words))
        while isinstance(context.command, typer.core.TyperGroup):
            name, command, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
            context = command.make_context(name, rest, parent=context)
    except USAGE_ERROR as error:
        raise AssertionError(f"vlmill {shlex.join(words)}: {error.format_message()}") from error


def check_extras(words: list[str]) -> None:
    """Check that extras which are installed from the clone exist."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words:
        for name in re.findall(r"^\.\[(.*)\]$", word)[:1]:
            assert set(name.split(",")) <= set(declared), f"{word}: extras are {sorted(declared)}"


def check_python(words: list[str]) -> None:
    """Check that a module or file which is run exists, and the names of its options."""
    if words[0] == "-c":
        ast.parse(words[1])
        return
    module = words[1] if words[0] == "-m" else words[0].removesuffix(".py").replace("/", ".")
    if module.partition(".")[0] not in {"benchmarks", "tools", "tests", "vlmill"}:
        return
    found = find_spec(module)
    assert found, f"there is no module {module}"
    code = Path(str(found.origin)).read_text(encoding="utf-8")
    for option in [word.partition("=")[0] for word in words[2:] if word.startswith("--")]:
        assert f'"{option}"' in code, f"{module} has no option {option}"


def check_python_block(block: Block) -> None:
    """Check the syntax of a block and that the names which it takes from vlmill are there."""
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "vlmill":
            assert hasattr(vlmill, node.attr), f"{block}: there is no vlmill.{node.attr}"
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vlmill"):
            module = __import__(str(node.module), fromlist=["*"])
            assert all(hasattr(module, name.name) for name in node.names), f"{block}: {ast.unparse(node)}"


def read_block(block: Block) -> Any:
    """What a block of YAML holds."""
    return parse_yaml(block.code, str(block))
