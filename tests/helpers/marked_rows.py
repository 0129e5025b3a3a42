"""Rows with coordinates in upstream's forms: RefCOCO and Visual Genome as LLaVA has them, LRV, pointing, PaliGemma's.

Each has a picture that shows its box in white on black.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from tests.helpers.upstream import encoded, json_lines

SIZES = [(640, 360), (360, 640), (120, 80)]
ASK = "<image>\nPlease provide the bounding box coordinate of the region this sentence describes: the white box."
DESCRIBE = "<image>\nPlease provide a short description for this region"
LRV = r"(?P<region>X:\s*\d+,?\s*Y:\s*\d+\D{1,20}Width:\s*\d+,?\s*Height:\s*\d+)"
SOURCES: dict[str, dict[str, Any]] = {
    "refcoco": {"kind": "llava", "boxes": {"form": "llava"}},
    "vg": {"kind": "llava", "boxes": {"form": "llava", "frame": "square"}},
    "lrv": {
        "kind": "table",
        "options": {"image": "image_id", "file": "{image}.png", "question": "question", "answer": "answer"},
        "boxes": {"pattern": LRV, "order": "xywh", "unit": "pixels"},
    },
    "pointing": {"kind": "llava", "boxes": {"form": "molmo"}},
    "loc": {"kind": "llava", "boxes": {"form": "paligemma"}},
}
"""What a recipe says of each."""


def name_sources() -> dict[str, dict[str, Any]]:
    """The block of a recipe beside the files."""
    return {name: {"files": f"{name}.jsonl", "images": "pictures", **about} for name, about in SOURCES.items()}


def write_marked_rows(folder: Path) -> None:
    """The files of all sources, and `pictures/`. The last two rows of refcoco are bad."""
    rows: dict[str, list[Any]] = {name: [] for name in SOURCES}
    (folder / "pictures").mkdir()
    for number, size in enumerate(SIZES):
        for where, box in place_boxes(size).items():
            name, path = f"{number}-{where}", f"{number}-{where}.png"
            picture = Image.new("RGB", size, (20, 20, 20))
            left, top, right, bottom = box
            ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), fill=(255, 255, 255))
            (folder / "pictures" / path).write_bytes(encoded(picture))
            rows["refcoco"].append(_talk(path, ASK, _write_fractions(box, size)))
            rows["vg"].append(_talk(path, f"{DESCRIBE}: {_write_fractions(box, size, square=True)}.", "A white box."))
            asked = f"Is there a box at X:{left} Y:{top} with Width:{right - left} Height:{bottom - top}?"
            rows["lrv"].append({"image_id": name, "question": asked, "answer": "Yes."})
            x, y = 50 * (left + right) / size[0], 50 * (top + bottom) / size[1]
            point = f'<point x="{x:.1f}" y="{y:.1f}" alt="1 box">1 box</point>'
            rows["pointing"].append(_talk(path, "<image>\nPoint to the white box.", point))
            bins = [min(int(1024 * place / size[at % 2]), 1023) for at, place in enumerate(box)]
            loc = "".join(f"<loc{bins[at]:04}>" for at in (1, 0, 3, 2))
            rows["loc"].append(_talk(path, "<image>\ndetect box", f"{loc} box"))
    rows["refcoco"].append(_talk("0-middle.png", ASK, "[0.100, 0.200, 1.700, 0.400]"))
    rows["refcoco"].append({"conversations": _take_turns("Where?", "At [0.100, 0.200, 0.300, 0.400].")})
    for name, found in rows.items():
        json_lines(folder / f"{name}.jsonl", found)


def place_boxes(size: tuple[int, int]) -> dict[str, tuple[int, int, int, int]]:
    """A rectangle in the middle, which no crop touches, and one at the left, which that of a wide picture does."""
    width, height = size
    middle = (round(0.4 * width), round(0.3 * height), round(0.6 * width), round(0.7 * height))
    return {"middle": middle, "left": (0, round(0.4 * height), round(0.2 * width), round(0.6 * height))}


def _write_fractions(box: Sequence[int], size: tuple[int, int], *, square: bool = False) -> str:
    whole = (max(size), max(size)) if square else size
    pads = [(side - length) // 2 for side, length in zip(whole, size, strict=True)]
    places = ((place + pads[at % 2]) / whole[at % 2] for at, place in enumerate(box))
    return f"[{', '.join(f'{place:.3f}' for place in places)}]"


def _take_turns(asked: str, answered: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": asked}, {"from": "gpt", "value": answered}]


def _talk(image: str, asked: str, answered: str) -> dict[str, Any]:
    return {"id": "1", "image": image, "conversations": _take_turns(asked, answered)}
