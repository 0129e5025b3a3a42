"""A small recipe with every kind of source, a build of it, and what a build leaves behind."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.stages import write_tokenizer
from tests.helpers.upstream import (
    cauldron,
    idl_json,
    obelics,
    pdf,
    pdfa_json,
    picture,
    tar,
    tiff,
)
from vlmill.pipeline import cli

CHINESE = "这个软件的主要功能是帮助用户编辑图片和处理文字。您可以在设置中选择不同的语言，然后重新启动程序。"
ENGLISH = (
    "The gardener walked along the river every morning and counted the boats that were tied to the old wooden bridge."
)

_NOUNS = (
    "amber basin cliff drift ember field grove hollow island jetty kernel lantern meadow north orchard pebble quarry "
    "ridge stone tunnel valley willow acorn birch cedar daisy elder fern garlic hazel iris juniper kelp lotus maple "
    "nettle olive poppy quince"
)
NOUNS = _NOUNS.split()


def prose(number: int) -> str:
    """A paragraph that is like no other."""
    digits = hashlib.sha256(str(number).encode()).hexdigest()[:24]
    chosen = [NOUNS[int(digit, 16)] + digit for digit in digits]
    return f"Report {number} describes " + " and the ".join(chosen) + "."


def write_input_files(folder: Path) -> None:
    """Three documents of each kind that stay, and some that go."""
    (folder / "served").mkdir(parents=True)
    for number in range(6):
        (folder / "served" / f"{number}.png").write_bytes(picture(number, (160, 120)))
    (folder / "served" / "page.png").write_bytes(b"<!doctype html><title>Sign in</title>")
    url = "http://img.small.test/{}.png".format
    documents = [[prose(number), url(number), prose(100 + number)] for number in range(4)]
    documents += [
        [prose(0), url(0), prose(100)],
        [CHINESE, CHINESE],
        [ENGLISH, CHINESE, url(4)],
        [prose(7), url("missing"), url("page"), url(5)],
    ]
    obelics(folder / "web.parquet", documents, id=[f"doc-{n:02}" for n in range(len(documents))])
    cauldron(
        folder / "quiz.parquet",
        [
            (
                [picture(50 + n, (200, 60 + n))],
                [(f"What stands in field {n}?", f"Thing {n}"), (f"And in {n + 1}?", "Nothing")],
            )
            for n in range(8)
        ],
    )
    scans = {
        f"{n}.{form}": data
        for n in range(3)
        for form, data in (("json", idl_json([[prose(200 + n)]])), ("tif", tiff([_page(n)])))
    }
    tar(folder / "scans.tar", scans)
    pages = [[prose(300)[:40], "second line"], [prose(301)[:40], "another line"]]
    tar(folder / "papers.tar", {"a.json": pdfa_json(pages), "a.pdf": pdf(pages)})


def _page(number: int) -> Any:
    import io

    from PIL import Image

    return Image.open(io.BytesIO(picture(80 + number, (120, 160)))).convert("L")


RECIPE: dict[str, Any] = {
    "name": "small",
    "seed": 5,
    "sources": {
        "web": {
            "kind": "obelics",
            "files": "web.parquet",
            "licence": "CC0-1.0",
            "serve": {"http://img.small.test/": "served"},
        },
        "quiz": {"kind": "cauldron", "files": "quiz.parquet", "licence": "CC0-1.0"},
        "scans": {"kind": "idl", "files": "scans.tar", "licence": "CC0-1.0"},
        "papers": {"kind": "pdfa", "files": "papers.tar", "licence": "CC0-1.0"},
    },
    "partition": {"rows": 5},
    "fetch": {"retries": 0, "timeout_s": 5},
    "filters": [{"language": {"drop": ["zh"]}}, {"shape": {"max_ratio": 10}}],
    "policies": {"small": {"kind": "letterbox", "side": 56, "patch": 14}},
    "tokenizer": "tokenizer.json",
    "stages": [
        {
            "name": "align",
            "policy": "small",
            "mixture": {
                "shares": {"web": 0.4, "quiz": 0.3, "scans": 0.2, "papers": 0.1},
                "epochs": 1,
                "sequence_length": 512,
            },
            "train": {
                "steps": 2,
                "sequences": 2,
                "learning_rate": {"text": 0.001, "projector": 0.001, "vision": 0.001},
            },
        }
    ],
    "model": {
        "family": "llava",
        "vision": {"kind": "siglip", "hidden_size": 32, "layers": 1, "heads": 2, "image_size": 56, "patch_size": 14},
        "text": {"kind": "llama", "hidden_size": 32, "layers": 1, "heads": 2},
    },
}


def write_recipe(folder: Path, **changes: Any) -> Path:
    """The recipe with its input files and tokenizer; `changes` replace top-level keys."""
    if not (folder / "web.parquet").exists():
        write_input_files(folder)
        write_tokenizer(folder / "tokenizer.json")
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **changes}))
    return path


def vlmill(*arguments: object) -> int:
    """Run the command in this process; its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["vlmill", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as ended:
            return int(ended.code or 0)
    return 0


def product(root: Path) -> dict[str, str]:
    """What a build is for: path -> sha256 of everything under shards/ and mixtures/."""
    files = sorted(
        path for partition in ("shards", "mixtures") for path in (root / partition).rglob("*") if path.is_file()
    )
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
