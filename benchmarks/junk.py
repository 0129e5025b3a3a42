"""Junk of web pages, drawn: texts and images that no page needs, as `benchmarks.quality` plants them.

Two sets of kinds: one that was looked at while the recipes were made, and one that was written afterwards. A kind is a
function of a random generator; a kind of a host also of the host's own generator, which gives what all its pages share.
"""

from __future__ import annotations

import io
import json
import random
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageDraw

Text = Callable[[random.Random], str]
HostText = Callable[[random.Random, random.Random], str]  # of the page, of the host
Picture = Callable[[random.Random], bytes]
NAMES = "Ava Ben Carla Dmitri Elena Farid Greta Hugo Ines Jonas Karin Luca Mara Nils Olga Pablo Quinn Rosa Sven Tara".split()
PLACES = "Bristol Denver Lyon Osaka Porto Quito Riga Seville Tampa Utrecht Vienna Warsaw Xiamen York Zagreb".split()
GOODS = "sofa kettle drill jacket router helmet lantern guitar blender tripod racket stapler wallet mattress".split()
MONTHS = "January February March April May June July August September October November December".split()


def _some(draw: random.Random, words: list[str], least: int, most: int) -> list[str]:
    return draw.sample(words, draw.randint(least, min(most, len(words))))


def _letters(draw: random.Random, of: str, number: int) -> str:
    return "".join(draw.choice(of) for _ in range(number))


def _date(draw: random.Random) -> str:
    return f"{draw.choice(MONTHS)} {draw.randint(1, 28)}, {draw.randint(2009, 2023)}"


SEEN_TEXTS: Mapping[str, Text] = {
    "keywords": lambda draw: ", ".join(f"{good} {place.lower()}" for good in _some(draw, GOODS, 9, 12) for place in _some(draw, PLACES, 1, 2)),
    "counters of shares": lambda draw: "Share {} Tweet {} Pin {} Email Print".format(*(draw.randint(0, 900) for _ in range(3))),
    "prices": lambda draw: " ".join(f"{good.title()} ${draw.randint(5, 900)}.99 Add to cart" for good in _some(draw, GOODS, 4, 7)),
    "random letters": lambda draw: " ".join(_letters(draw, string.ascii_lowercase, draw.randint(4, 9)) for _ in range(30)),
    "wrong encoding": lambda draw: " ".join(f"Ã©{name}â€™s cafÃ© â€œ{place}â€" for name, place in zip(_some(draw, NAMES, 6, 6), PLACES, strict=False)),
    "one sign": lambda draw: draw.choice("=-*_~#") * draw.randint(40, 120),
    "one phrase again": lambda draw: f"{draw.choice(GOODS)} best price buy now " * draw.randint(10, 20),
    "hash tags": lambda draw: " ".join(f"#{good}{place.lower()}" for good, place in zip(_some(draw, GOODS, 8, 12), PLACES, strict=False)),
    "address": lambda draw: f"Tel +{draw.randint(1, 99)} {draw.randint(100, 999)} {draw.randint(1000, 9999)} | Fax {draw.randint(1000, 9999)} | {draw.randint(1, 200)} High St, {draw.choice(PLACES)} {draw.randint(10000, 99999)}",
    "script": lambda draw: f"var _gaq = _gaq || []; _gaq.push(['_setAccount', 'UA-{draw.randint(10**6, 10**7)}-1']); (function(){{var s=document.createElement('script');}})();",
    "style": lambda draw: f".wp-block-{draw.choice(GOODS)} {{ margin: 0 {draw.randint(1, 9)}px; padding: 0; float: left; color: #{_letters(draw, '0123456789abcdef', 6)}; }}",
    "base64": lambda draw: _letters(draw, string.ascii_letters + string.digits + "+/", 300),
    "numbers": lambda draw: " ".join(f"{draw.uniform(0, 900):.2f}" for _ in range(40)),
    "names of links": lambda draw: " ".join(f"{place} {draw.choice(GOODS).title()}s" for place in _some(draw, PLACES, 8, 12)),
    "read more": lambda draw: draw.choice(["Read more", "Continue reading", "Click here", "View all", "Next »"]),
    "lorem ipsum": lambda draw: "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore magna aliqua."[draw.randint(0, 11):],
    "pornography": lambda draw: " ".join(draw.choice("free hot xxx porn milf videos watch online teens threesome blowjob now".split()) for _ in range(25)),
    "upper case": lambda draw: f"BUY {draw.choice(GOODS).upper()} NOW!!! LIMITED OFFER!!! {draw.randint(20, 90)}% OFF!!! ORDER TODAY!!!",
}  # fmt: skip
SEEN_HOST_TEXTS: Mapping[str, HostText] = {
    "menu": lambda page, host: " | ".join(["Home", *(f"{good.title()}s" for good in _some(host, GOODS, 5, 8)), "Contact"]),
    "menu, lines in any order": lambda page, host: "\n".join(page.sample(entries := [f"Our {good}s from {host.choice(PLACES)}" for good in _some(host, GOODS, 5, 8)], len(entries))),
    "footer": lambda page, host: f"© {page.randint(2010, 2023)} {host.choice(NAMES)} & Sons Ltd. All rights reserved. Reproduction of this site without permission is forbidden.",
    "cookies": lambda page, host: f"We at {host.choice(NAMES)} use cookies to make this site better for you. By going on you agree to our use of cookies, as our policy says.",
    "newsletter": lambda page, host: f"Would you like to hear from {host.choice(NAMES)} every week? Leave your address below, and we will send you our letter on {host.choice(GOODS)}s.",
    "page numbers": lambda page, host: f"You are on page {page.randint(1, 40)} of {page.randint(41, 90)} of the {host.choice(GOODS)} archive, and you can go on to the next.",
    "comments": lambda page, host: f"There are {page.randint(0, 300)} comments on this story about {host.choice(PLACES)}. You must be logged in if you want to post one.",
    "date": lambda page, host: f"Last updated on {page.randint(1, 28)}/{page.randint(1, 12)}/{page.randint(2010, 2023)} by the team of {host.choice(PLACES)}, who can be reached at the desk.",
}  # fmt: skip


def _encode(image: Image.Image, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def _flat(size: tuple[int, int], draw: random.Random) -> Image.Image:
    return Image.new("RGB", size, tuple(draw.randint(0, 255) for _ in range(3)))


def _sign(size: tuple[int, int], draw: random.Random) -> bytes:
    """Some shapes and words on one colour: an advertisement, a button, a logo."""
    image = _flat(size, draw)
    pen = ImageDraw.Draw(image)
    for _ in range(draw.randint(2, 6)):
        x, y = draw.randint(0, size[0]), draw.randint(0, size[1])
        end = (x + draw.randint(1, size[0]), y + draw.randint(1, size[1]))
        pen.rectangle((x, y, *end), fill=tuple(draw.randint(0, 255) for _ in range(3)))
    pen.text((size[0] // 8, size[1] // 3), f"{draw.choice(GOODS)} {draw.choice(PLACES)}", fill=(0, 0, 0))
    return _encode(image)


def _noise(size: tuple[int, int], draw: random.Random) -> bytes:
    pixels = np.random.default_rng(draw.randint(0, 1 << 30)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return _encode(Image.fromarray(pixels))


SEEN_PICTURES: Mapping[str, Picture] = {
    "spacer 1 x 1": lambda draw: _encode(_flat((1, 1), draw), "GIF"),
    "icon 16": partial(_sign, (16, 16)),
    "button 88 x 31": partial(_sign, (88, 31)),
    "banner 728 x 90": partial(_sign, (728, 90)),
    "avatar 64": partial(_sign, (64, 64)),
    "one colour 400": lambda draw: _encode(_flat((400, 400), draw)),
    "rule 600 x 3": partial(_noise, (600, 3)),
    "advertisement 300 x 250": partial(_sign, (300, 250)),
}
SEEN_HOST_PICTURES: Mapping[str, Picture] = {
    "logo 240 x 160": partial(_sign, (240, 160)),
    "logo 240 x 80": partial(_sign, (240, 80)),
    "header 1000 x 600": partial(_sign, (1000, 600)),
}


@dataclass(frozen=True)
class Kinds:
    """Makers of junk by kind: of a page's own, and of what a host shows on a share of its pages."""

    texts: Mapping[str, Text]
    host_texts: Mapping[str, HostText]
    pictures: Mapping[str, Picture]
    host_pictures: Mapping[str, tuple[Picture, float]]


SEEN = Kinds(
    SEEN_TEXTS, SEEN_HOST_TEXTS, SEEN_PICTURES, {kind: (make, 1.0) for kind, make in SEEN_HOST_PICTURES.items()}
)
HELD_BACK = SEEN
