"""Texts and pictures that stand-ins are made of: drawn from a name and a number, so the same in every run.

Most texts are English, every eighth is Chinese, and some say again what an earlier one said. Pictures come as JPEG and
PNG, in colour, in grey, with a palette and with transparency, in several sizes.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

from tests.helpers.upstream import picture

WORDS = """lantern harbour orchard violin glacier kettle saddle compass anchor bakery canyon ladder meadow parcel quarry
rocket shovel temple valley wagon barrel candle donkey engine feather garden hammer island jacket kitchen lighthouse
market needle oven pebble quilt river station tunnel umbrella village window"""
NOUNS = WORDS.split()
ADJECTIVES = ("old", "red", "narrow", "quiet", "bright", "heavy", "wooden", "northern", "broken", "gentle", "hollow")
PLACES = ("beside", "behind", "in front of", "far from", "next to", "opposite")
CHINESE_NOUNS = ("灯塔", "果园", "小提琴", "车站", "市场", "山谷", "水壶", "图书馆", "花园", "厨房", "火箭", "寺庙")
CHINESE_PLACES = ("旁边", "后面", "前面", "对面")

FORMS = (
    ("JPEG", "RGB", "jpg"),
    ("PNG", "RGB", "png"),
    ("JPEG", "L", "jpg"),
    ("PNG", "RGBA", "png"),
    ("PNG", "P", "png"),
    ("PNG", "L", "png"),
)
SIDES = (72, 80, 96, 120)


@dataclass(frozen=True)
class Drawing:
    """A picture file: its bytes and the suffix that its format has."""

    data: bytes
    suffix: str


@dataclass(frozen=True)
class Material:
    """What the rows of one subset are made of; another name gives other texts and pictures."""

    name: str

    def original(self, number: int) -> int:
        """The number whose text and picture row `number` has: its own but in every eleventh row, a copy."""
        return number - 3 if number % 11 == 7 else number

    def is_chinese(self, number: int) -> bool:
        """Whether the text of row `number` is Chinese."""
        return self.original(number) % 8 == 5

    def sentences(self, number: int, count: int = 2, *, language: str = "") -> str:
        """That many sentences, in English or Chinese where `language` says `en` or `zh`, else in the row's language."""
        number = self.original(number)
        draw = self._random("text", number, count)
        if language == "zh" or (not language and self.is_chinese(number)):
            return "".join(_say_chinese(draw) for _ in range(count))
        return " ".join(_say_english(draw) for _ in range(count))

    def question(self, number: int) -> str:
        """A question in the language of the row."""
        noun = self._random("question", self.original(number)).choice(NOUNS)
        return "这张图片里有什么？" if self.is_chinese(number) else f"What stands near the {noun}?"

    def picture(self, number: int, place: int = 0, form: str = "") -> Drawing:
        """The picture in a place of row `number`; `form` names a format of FORMS, else they take turns."""
        number = self.original(number)
        draw = self._random("picture", number, place)
        chosen = [item for item in FORMS if form in {"", item[0]}]
        name, mode, suffix = chosen[(number + place) % len(chosen)]
        size = (draw.choice(SIDES), draw.choice(SIDES))
        return Drawing(picture(draw.randrange(1 << 31), size, name, mode), suffix)

    def _random(self, *what: object) -> random.Random:
        seed = hashlib.sha256(repr((self.name, *what)).encode()).digest()
        return random.Random(seed)


def _say_english(draw: random.Random) -> str:
    first, second, third = draw.sample(NOUNS, 3)
    return (
        f"The {draw.choice(ADJECTIVES)} {first} stands {draw.choice(PLACES)} the {second}, and "
        f"{draw.randrange(2, 99)} people walked to the {draw.choice(ADJECTIVES)} {third} before it was dark."
    )


def _say_chinese(draw: random.Random) -> str:
    first, second = draw.sample(CHINESE_NOUNS, 2)
    return f"这个{first}在{second}的{draw.choice(CHINESE_PLACES)}，昨天有{draw.randrange(2, 99)}个人来这里参观和学习。"
