"""Junk of web pages: texts from the templates of `junk.yaml`, and drawn images, as `benchmarks.quality` plants them.

Two sets of kinds: one that was looked at while the recipe was made, and one that was held back.
"""

from __future__ import annotations

import io
import random
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw

WORDS = {
    "good": [
        "sofa",
        "kettle",
        "drill",
        "jacket",
        "router",
        "helmet",
        "lantern",
        "guitar",
        "blender",
        "tripod",
        "wallet",
    ],
    "town": ["bristol", "denver", "lyon", "osaka", "porto", "quito", "riga", "seville", "tampa", "utrecht", "zagreb"],
    "name": [
        "Ava",
        "Ben",
        "Carla",
        "Dmitri",
        "Elena",
        "Farid",
        "Greta",
        "Hugo",
        "Ines",
        "Jonas",
        "Mara",
        "Olga",
        "Tara",
    ],
    "month": ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October"],
    "sign": ["=====", "-----", "*****", "_____", "~~~~~"],
    "d": list("123456789"),
}
Picture = Callable[[random.Random], bytes]


class _Fields(dict[str, str]):
    """What a field of a template becomes: drawn by the host where it is in upper case, else by the page."""

    def __init__(self, page: random.Random, host: random.Random) -> None:
        super().__init__()
        self.page, self.host = page, host

    def __missing__(self, key: str) -> str:
        draw, name = (self.host if key.isupper() else self.page), key.lower()
        if name == "n":
            return str(draw.randint(10, 4000))
        if name in {"letters", "hex"}:
            of = string.ascii_lowercase if name == "letters" else "0123456789abcdef"
            return "".join(draw.choice(of) for _ in range(draw.randint(4, 9)))
        word = draw.choice(WORDS[name])
        return word.title() if key.istitle() else word


def write_text(kind: Mapping[str, Any], page: random.Random, host: random.Random) -> str:
    """A text of a kind, as `junk.yaml` explains it."""
    times, fields = kind.get("times", 1), _Fields(page, host)
    if "of" not in kind:
        return str(kind.get("joint", " ")).join(kind["text"].format_map(fields) for _ in range(times))
    return str(kind["joint"]).join(page.sample([kind["text"].format_map(fields) for _ in range(kind["of"])], times))


def _encode(image: Image.Image, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def _make_flat(size: tuple[int, int], draw: random.Random) -> Image.Image:
    red, green, blue = (draw.randint(0, 255) for _ in range(3))
    return Image.new("RGB", size, (red, green, blue))


def draw_sign(size: tuple[int, int], draw: random.Random) -> bytes:
    """Some shapes and words on one colour: an advertisement, a button, a logo."""
    image = _make_flat(size, draw)
    pen = ImageDraw.Draw(image)
    for _ in range(draw.randint(2, 6)):
        x, y = draw.randint(0, size[0]), draw.randint(0, size[1])
        colour = (draw.randint(0, 255), draw.randint(0, 255), draw.randint(0, 255))
        pen.rectangle((x, y, x + draw.randint(1, size[0]), y + draw.randint(1, size[1])), fill=colour)
    pen.text((size[0] // 8, size[1] // 3), f"{draw.choice(WORDS['good'])} {draw.choice(WORDS['town'])}", fill=(0, 0, 0))
    return _encode(image)


def draw_noise(size: tuple[int, int], draw: random.Random) -> bytes:
    """Random pixels."""
    pixels = np.random.default_rng(draw.randint(0, 1 << 30)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return _encode(Image.fromarray(pixels))


def draw_colour(side: int, form: str, draw: random.Random) -> bytes:
    """A square of one colour."""
    return _encode(_make_flat((side, side), draw), form)


def draw_stars(draw: random.Random) -> bytes:
    """Five stars, some of them golden."""
    image = Image.new("RGB", (200, 40), "white")
    for place in range(5):
        colour = "gold" if draw.random() < 0.7 else "gray"
        ImageDraw.Draw(image).regular_polygon((20 + 40 * place, 20, 15), 5, fill=colour)
    return _encode(image)


def draw_cells(side: int, cells: int, draw: random.Random) -> bytes:
    """A black and white code, as of QR."""
    bits = np.random.default_rng(draw.randint(0, 1 << 30)).integers(0, 2, (cells, cells), dtype=np.uint8) * 255
    return _encode(Image.fromarray(bits).resize((side, side), Image.Resampling.NEAREST))


def draw_placeholder(draw: random.Random) -> bytes:
    """White, with a word of nearly white."""
    image = Image.new("RGB", (300, 300), (255, 255, 255))
    ImageDraw.Draw(image).text((100, 140), draw.choice(WORDS["good"]), fill=(252, 252, 252))
    return _encode(image)


@dataclass(frozen=True)
class Kinds:
    """Junk by kind: of a page itself, and of its host: texts on all of its pages, pictures on a share of them."""

    texts: Mapping[str, Mapping[str, Any]]
    host_texts: Mapping[str, Mapping[str, Any]]
    pictures: Mapping[str, Picture]
    host_pictures: Mapping[str, tuple[Picture, float]]


def read_kinds(name: str) -> Kinds:
    """One of the two sets: `seen` or `held_back`."""
    texts = yaml.safe_load(Path(__file__).with_name("junk.yaml").read_text(encoding="utf-8"))[name]
    return Kinds(texts["page"], texts["host"], *PICTURES[name])


PICTURES: Mapping[str, tuple[Mapping[str, Picture], Mapping[str, tuple[Picture, float]]]] = {
    "seen": (
        {
            "spacer 1 x 1": partial(draw_colour, 1, "GIF"),
            "icon 16": partial(draw_sign, (16, 16)),
            "button 88 x 31": partial(draw_sign, (88, 31)),
            "banner 728 x 90": partial(draw_sign, (728, 90)),
            "avatar 64": partial(draw_sign, (64, 64)),
            "one colour 400": partial(draw_colour, 400, "PNG"),
            "rule 600 x 3": partial(draw_noise, (600, 3)),
            "advertisement 300 x 250": partial(draw_sign, (300, 250)),
        },
        {
            "logo 240 x 160": (partial(draw_sign, (240, 160)), 1.0),
            "logo 240 x 80": (partial(draw_sign, (240, 80)), 1.0),
            "header 1000 x 600": (partial(draw_sign, (1000, 600)), 1.0),
        },
    ),
    "held_back": (
        {
            "skyscraper 160 x 600": partial(draw_sign, (160, 600)),
            "leaderboard 970 x 90": partial(draw_sign, (970, 90)),
            "stars 200 x 40": draw_stars,
            "QR code 300": partial(draw_cells, 300, 25),
            "captcha 200 x 70": partial(draw_noise, (200, 70)),
            "identicon 80": partial(draw_cells, 80, 5),
            "flag 24 x 16": partial(draw_sign, (24, 16)),
            "payment 300 x 50": partial(draw_sign, (300, 50)),
            "placeholder 300, all but white": draw_placeholder,
            "sprites 32 x 1024": partial(draw_noise, (32, 1024)),
            "square advertisement 336": partial(draw_sign, (336, 336)),
        },
        {
            "square logo 200, all pages": (partial(draw_sign, (200, 200)), 1.0),
            "banner 1200 x 630, half of the pages": (partial(draw_sign, (1200, 630)), 0.5),
            "portrait 180, a third of the pages": (partial(draw_sign, (180, 180)), 0.33),
            "no picture yet 300, a fifth of the pages": (partial(draw_sign, (300, 300)), 0.2),
        },
    ),
}
