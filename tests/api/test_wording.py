"""Messages name options on the command line, and arguments in Python: over every message of the code."""

from __future__ import annotations

import ast
import io
import re
import warnings
from pathlib import Path

import pytest
from rich.console import Console

import vlmill
from tests.helpers.small import vlmill as command
from tests.helpers.small import write_recipe
from vlmill.api.wording import CALLS, FLAGS, KNOWN, LISTS, PAIRS, VALUES, name_arguments

ROOT = Path(__file__).parents[2]
OPTION = re.compile(r"(?<![\w-])--[a-z]")
APART = ("pipeline/cli", "pipeline/proposal", "pipeline/page", "pipeline/recipe/reference.py")
APART += ("mixtures/disclosure", "mixtures/report/card.py", "train/lmms_eval.py")
"""Of commands that Python has not, of files and pages that are written, and of lmms-eval."""
OTHERS = (
    "convmv -f latin1 -t utf8 -r --notest",
    "pip install --force-reinstall",
    "ray start --",
    "`--data_path FOLDER/mixture.yaml --image_folder FOLDER`",
    "vlmill --version",
    "--section VALUE",
)
"""Options of other programs, and of commands that Python has not."""


def list_messages():
    """Every text of the code, with VALUE in the place of what is filled in."""
    for top in ("pipeline", "mixtures", "train", "src/vlmill/api", "src/vlmill/explore"):
        for file in sorted((ROOT / top).rglob("*.py")):
            place = file.relative_to(ROOT).as_posix()
            if place.startswith(APART) or place == "src/vlmill/api/wording.py":
                continue
            tree = ast.parse(file.read_text(encoding="utf-8"))
            filled = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
            left = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
            left |= {id(part) for node in filled for part in ast.walk(node) if part is not node}
            for node in ast.walk(tree):
                if id(node) in left:
                    continue
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "VALUE" for part in node.values)
                    yield f"{place}:{node.lineno}", "".join(map(str, parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield f"{place}:{node.lineno}", node.value


MESSAGES = [(place, text) for place, text in list_messages() if re.search(r"(?<![\w-])--[a-z]|\bvlmill [a-z]", text)]


def test_there_are_messages_to_look_at():
    assert len([text for _, text in MESSAGES if OPTION.search(text)]) > 80


@pytest.mark.parametrize("message", [pytest.param(text, id=place) for place, text in MESSAGES])
def test_no_message_of_python_names_an_option(message):
    said = name_arguments(message)
    for other in OTHERS:
        said = said.replace(other, "")
    assert not OPTION.search(said)


@pytest.mark.parametrize("message", [pytest.param(text, id=place) for place, text in MESSAGES])
def test_no_word_of_a_sentence_becomes_a_value(message):
    values = re.findall(r"=\[?'([a-z]\w*)'|\('([a-z]\w*)'", name_arguments(message))
    assert {one or other for one, other in values} <= {"auto", "cpu", "cuda", "policy", "skip", "step"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("change it with --accept-changes: all", "change it with accept_changes=True: all"),
        ("give another disk with --out, or", "give another disk with `out`, or"),
        ("build on it: --out s3://BUCKET/RUN", "build on it: out='s3://BUCKET/RUN'"),
        ("--workers 0 does without", "workers=0 does without"),
        ("--set shape.max_ratio=2.", "settings={'shape.max_ratio': 2}."),
        ("--set a.b='{allow_hosts: [x, y]}'", "settings={'a.b': '{allow_hosts: [x, y]}'}"),
        ("--set a.b: no 'c' in", "settings['a.b']: no 'c' in"),
        ("--source web=PATH. PATH is", "sources={'web': PATH}. PATH is"),
        ("--filter my.py: no file", "filters=['my.py']: no file"),
        ("--url, --sha256, --id, --row-id or --domain", "`urls`, `sha256`, `ids`, `row_ids` or `domains`"),
        ("vlmill takedown run --row-id 'T 1' takes", "vlmill.open_run('run').takedown(row_ids=['T 1']) takes"),
        ("take --device cpu", "take machine=vlmill.Machine(device='cpu')"),
        ("see: vlmill verify demo", "see: vlmill.open_run('demo').verify()"),
        ("`vlmill trace DIR ID` shows", "`vlmill.open_run(DIR).trace(ID)` shows"),
        ("vlmill report demo --reason near_text", "vlmill.open_run('demo').sample_losses(reason='near_text')"),
        ("vlmill report demo --source web --reason R", "vlmill.open_run('demo').sample_losses(source='web', reason=R)"),
        (
            "vlmill build my.yaml --out run --accept-changes --set a=1",
            "vlmill.build(vlmill.load_recipe('my.yaml', settings={'a': 1}), out='run', accept_changes=True)",
        ),
        ("vlmill new FOLDER writes one", "vlmill new FOLDER writes one"),
        ("pip install --force-reinstall x", "pip install --force-reinstall x"),
    ],
)
def test_an_option_is_its_argument_and_a_command_its_call(text, said):
    assert name_arguments(text) == said
    assert name_arguments(said) == said


def test_every_argument_is_one_of_a_public_call():
    from tests.api.test_arguments import list_callables

    taken = {name for _, function in list_callables() for name in function.__wrapped__.__code__.co_varnames}
    named = {*VALUES.values(), *LISTS.values(), *PAIRS.values(), *(flag.replace("-", "_") for flag in FLAGS)}
    assert named <= taken
    fields = vlmill.Machine.__dataclass_fields__
    assert {name.replace("-", "_") for name in KNOWN - {*VALUES, *LISTS, *PAIRS, *FLAGS}} <= {*fields}


@pytest.mark.parametrize("call", CALLS.values())
def test_every_call_is_there(call):
    owner, name = (vlmill.Run, call.rpartition(").")[2]) if ")." in call else (vlmill, call.partition(".")[2])
    assert callable(getattr(owner, name.partition("(")[0]))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wording")
    return vlmill.build(write_recipe(folder / "input files"), folder / "run", workers=0, until="survey")


def test_the_same_error_speaks_to_each_in_its_words(run, capsys):
    with pytest.raises(vlmill.StoreError) as caught:
        vlmill.build("quickstart", run.folder, workers=0)
    assert "Take another folder with `out`, or change this one with accept_changes=True" in str(caught.value)
    assert caught.value.faults == (str(caught.value),)
    assert command("build", "quickstart", "--out", run.folder, "--workers", 0) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "Take another folder with --out, or change this one with --accept-changes" in said


def test_properties_and_what_comes_later_speak_so_too(run, tmp_path):
    with pytest.raises(vlmill.StoreError, match=r"Make one with: vlmill.build\(RECIPE, out=.*\)"):
        vlmill.open_run(tmp_path)
    with pytest.raises(vlmill.NotBuiltError, match=r"run the build to its end: vlmill.build\(RECIPE, out=.*\)"):
        next(run.losses("web"))


def test_a_warning_of_python_names_arguments(run, monkeypatch):
    monkeypatch.setattr("vlmill.api.runs.explain_unbuilt", lambda _: "take it with --accept-changes")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        vlmill.open_run(run.folder)
    assert [str(one.message) for one in said] == ["take it with accept_changes=True"]
    assert said[0].filename == __file__


def test_so_do_lines_of_progress(tmp_path):
    """A build whose images are not there warns with the next call."""
    (tmp_path / "rows.jsonl").write_text('{"text": "What a picture shows.", "image": "a.png"}\n')
    source = {"kind": "table", "root": str(tmp_path), "files": "rows.jsonl", "images": str(tmp_path)}
    source |= {"options": {"caption": "text", "image": "image"}, "expect": {"kept": 0}}
    recipe = {"name": "lost", "seed": 1, "sources": {"pairs": source}}
    shown = Console(file=io.StringIO(), width=80)
    vlmill.build(recipe, tmp_path / "run", workers=0, until="curate", console=shown)
    said = shown.file.getvalue()
    assert "then build with retry_failed=True" in said
    assert ".sample_losses(source='pairs', reason='missing_file')" in said
    assert not OPTION.search(said), said
