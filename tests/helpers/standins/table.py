"""docs/datasets.md, from the registry of stand-ins: `python -m tests.helpers.standins.table > docs/datasets.md`."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping
from typing import Any

from tests.helpers.standins import DATASETS
from tests.helpers.standins.dataset import Dataset

KEPT: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
"""Names stay whole where lines are wrapped."""

HEADER = """# The datasets that published recipes read

For contributors: in which form each dataset is published, and what reads it. The tests have a stand-in for each, a
small repository in the same form (`tests/helpers/standins`), on a Hub on loopback. This page is made of their registry
by `python -m tests.helpers.standins.table > docs/datasets.md`, and a test compares them.

No dataset was loaded for it. *Known* says what was looked up and where. *Guessed* is what a stand-in assumes beyond
that; the licence too is a guess where it is named there. Licence *none*: no card was seen that states one for all.

Published mixtures name some that have no stand-in. facebook/pmd is a loading script without files (from memory); pairs
of LAION COCO and CC12M can take its place. Idefics3 names three more, whose columns the script for its fine-tuning sets
shows: ahmed-masry/ChartGemma (`image` as bytes, `input`, `output`), which no kind reads; Luckyjhg/Geo170K and
OpenGVLab/ShareGPT-4o (`image` as a path, `conversations`), which `llava` reads where they are JSON.
LLaVA-OneVision's llava_wild_4v_39k and llava_wild_4v_12k, MathV360K's TQA, VQA-AS and VQA-RAD, and
instruct_azure_dc_zh_92K were not released (LLaVA-NeXT, scripts/train/README.md).

"""


def render_table() -> str:
    """What the page says of each dataset."""
    return "\n".join(_render(dataset) for dataset in DATASETS.values())


def _render(dataset: Dataset) -> str:
    read_by = f"kind `{dataset.kind}`" + (f", `options: {_write_options(dataset.options)}`" if dataset.options else "")
    few = ", ".join(dataset.subsets[:4])
    subsets = "" if dataset.subsets == ("default",) else f"{len(dataset.subsets)}: {few}"
    said = {
        "Files": dataset.files + ("" if dataset.on_hub else " (not on the Hub)"),
        "Subsets": subsets + (", ..." if len(dataset.subsets) > 4 else ""),
        "Row": dataset.shape,
        "Read by": read_by,
        "Images": dataset.images,
        "Licence": (dataset.licence or "none") + ("; gated" if dataset.gated else ""),
        "Known": dataset.known,
        "Guessed": dataset.guessed,
        "Remark": dataset.remark,
    }
    lines = [f"- {name}: {text}" + "." * (not text.endswith(".")) for name, text in said.items() if text]
    wrapped = [textwrap.fill(_escape(line), 120, subsequent_indent="  ", **KEPT) for line in lines]
    return "\n".join([f"## {dataset.repository}", "", *wrapped, ""])


def _write_options(options: Mapping[str, object]) -> str:
    """Options as a recipe has them."""
    written = (
        f"{name}: [{', '.join(map(str, value))}]" if isinstance(value, list | tuple) else f"{name}: {value}"
        for name, value in options.items()
    )
    return "{" + ", ".join(written) + "}"


def _escape(text: str) -> str:
    """Text whose stars are no emphasis."""
    return text.replace("*", "\\*")


if __name__ == "__main__":
    sys.stdout.write(HEADER + render_table())
