"""The numbers of a checkout that `tools/structure.py` prints, on a small one in both layouts."""

from pathlib import Path

import pytest

from tools.structure import describe_checkout, list_doubled_classes, list_one_word, read_modules

ROOT = Path(__file__).parents[2]

FILES = {
    "pipeline/__init__.py": "",
    "pipeline/core/__init__.py": "",
    "pipeline/core/keys.py": "class Key: ...\ndef canonicalise(value):\n    return value\n",
    "pipeline/steps/__init__.py": "",
    "pipeline/steps/read.py": (
        "from {0}pipeline.core.keys import Key\nfrom {0}pipeline.core import keys\nfrom . import other\n"
        "class Key: ...\ndef _read():\n    import {0}pipeline.cli\n\n\n    return 1\ndef read_rows():\n    return 2\n"
    ),
    "pipeline/steps/other.py": "import json\n# " + "x" * 119 + "\n",
    "pipeline/cli.py": "from {0}pipeline.steps.read import read_rows\nfrom {0}mixtures import plan\n",
    "mixtures/__init__.py": "",
    "mixtures/plan.py": "from {0}pipeline.core import keys\n",
}


@pytest.mark.parametrize("prefix", ["", "vlmill."])
def test_entries_imports_and_names_are_counted(tmp_path, prefix):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(prefix))
    assert describe_checkout(tmp_path).splitlines() == [
        "package      entries  files   lines  edges",
        "pipeline           3      7      18      3",  # steps -> core, steps -> cli, cli -> steps
        "mixtures           1      2       1      0",  # another package's modules are no edge of this one
        "train              0      0       0      0",
        "recipes            0      0       0      0",
        "largest file: 11 lines, pipeline/steps/read.py",
        "longest function: 5 lines, pipeline/steps/read.py:5 _read",
        "one-word functions: 1 public, 1 private",
        "  pipeline/core/keys.py:2 canonicalise",
        "doubled class names: 1 (Key)",
        "lines over 120 columns: 1",
    ]


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="is no checkout of vlmill"):
        describe_checkout(tmp_path)


def test_functions_say_verb_and_object_and_no_two_classes_share_a_name():
    """Commands may be one word, as they are typed."""
    modules = read_modules(ROOT)
    public, private = list_one_word(modules)
    assert [name for name in public if not name.startswith("pipeline/cli/")] == []
    assert private == []
    assert list_doubled_classes(modules) == []
