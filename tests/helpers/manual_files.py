"""The files that the manual's blocks name, so that they run: recipes, runs, pictures, tables.

`demo` is the quickstart's run and is built once. `run` is that of `my.yaml`, two sources of it with two training steps.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import yaml

from tests.helpers.manual import PAGES, ROOT, list_blocks
from tests.helpers.small import vlmill
from tests.helpers.upstream import picture

QUICKSTART = ROOT / "recipes/quickstart.yaml"
SHARED = re.compile(r"\.(parquet|tar)$")
"""Files of a run that no command writes in place, so copies may share them."""


def build_demo(folder: Path) -> None:
    """Build the quickstart as `demo`, and as `run` under a recipe with few training steps."""
    assert vlmill("build", "quickstart", "--out", folder / "demo", "--workers", 0) == 0
    write_recipe(folder)
    copy_run(folder / "demo", folder / "run")
    assert vlmill("build", folder / "my.yaml", "--out", folder / "run", "--workers", 0, "--accept-changes") == 0


def write_recipe(folder: Path) -> None:
    """`my.yaml`: two sources of the quickstart where they lie, a small model, and two steps in each stage."""
    recipe = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    recipe["sources"] = {name: recipe["sources"][name] for name in ("quiz", "web")}
    for stage in recipe["stages"]:
        stage["mixture"]["shares"] = {name: stage["mixture"]["shares"][name] for name in ("quiz", "web")}
        stage["train"] |= {"epochs": None, "steps": 2, "warm_up": 0, "sequences": 8}
    recipe["model"]["text"] |= {"hidden_size": 32, "layers": 1, "heads": 2}
    for source in recipe["sources"].values():
        source["root"] = str(QUICKSTART.parent / source["root"])
        source["serve"] = {url: str(QUICKSTART.parent / place) for url, place in source.get("serve", {}).items()}
    recipe["tokenizer"] = str(QUICKSTART.parent / recipe["tokenizer"])
    (folder / "my.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))


def copy_run(run: Path, folder: Path) -> None:
    """Copy a run; files that no command writes in place are linked."""

    def copy_file(source: str, target: str) -> None:
        (os.link if SHARED.search(source) else shutil.copy2)(source, target)

    shutil.copytree(run, folder, copy_function=copy_file)


def lay_out(built: Path, page: Path, folder: Path) -> None:
    """Put into a folder what the blocks of a page name."""
    text = page.read_text(encoding="utf-8")
    write_recipe(folder)
    (folder / "recipes").symlink_to(ROOT / "recipes")
    for name in ("demo", "run"):
        if re.search(rf"(?<![\w/]){name}\b", text):
            copy_run(built / name, folder / name)
    for block in [block for other in (*PAGES, page) for block in list_blocks(other)]:
        if named := re.match(r"# ([\w.-]+\.(?:py|yaml))\n", block.code):
            (folder / named[1]).write_text(block.code)
    write_pictures(folder)


def write_pictures(folder: Path) -> None:
    """Pictures with captions, a table of answers, and LLaVA's rows."""
    (folder / "photos").mkdir()
    rows = []
    for number in range(8):
        (folder / f"photos/{number}.png").write_bytes(picture(number, (80, 60)))
        (folder / f"photos/{number}.txt").write_text(f"A picture with number {number}, in many colours.")
        turns = [
            {"from": "human", "value": f"<image>\nWhich number is {number}?"},
            {"from": "gpt", "value": str(number)},
        ]
        rows.append({"id": str(number), "image": f"photos/{number}.png", "conversations": turns})
    (folder / "rows.json").write_text(json.dumps(rows))
    table = ["image,said_by_a,said_by_b", *(f"photos/{number}.png,Which one?,Number {number}" for number in range(8))]
    (folder / "survey.csv").write_text("\n".join(table) + "\n")
