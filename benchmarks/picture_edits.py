"""What happens to pictures between sites, and drawn templates: what the benchmark of pictures is made of.

Everything is a function of a picture and a number, so a run can be repeated to the byte.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Mapping

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

Edit = Callable[[Image.Image, int], Image.Image]
"""A picture and a number that chooses what the edit leaves open, such as a colour or a corner."""

WORDS = (
    "table",
    "river",
    "garden",
    "winter",
    "letter",
    "bridge",
    "copper",
    "silver",
    "window",
    "market",
    "basket",
    "yellow",
    "summer",
    "harbour",
    "paper",
    "candle",
    "button",
    "orange",
    "kitchen",
    "flower",
    "number",
    "ticket",
    "doctor",
    "school",
    "engine",
    "pocket",
    "mirror",
    "castle",
    "forest",
    "island",
    "planet",
    "rocket",
    "saddle",
    "tunnel",
    "valley",
    "wallet",
    "zipper",
)


def encode_picture(picture: Image.Image, kind: str = "PNG", **options: int) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **(options or {"compress_level": 1}))
    return buffer.getvalue()


def _compress(picture: Image.Image, _: int) -> Image.Image:
    return Image.open(io.BytesIO(encode_picture(picture, "JPEG", quality=50))).convert("RGB")


def _halve(picture: Image.Image, _: int) -> Image.Image:
    size = max(1, picture.width // 2), max(1, picture.height // 2)
    return picture.resize(size, Image.Resampling.LANCZOS)


def _crop(share: float) -> Edit:
    """Without this share of width and height at each of the four sides."""

    def crop(picture: Image.Image, _: int) -> Image.Image:
        left, top = round(picture.width * share), round(picture.height * share)
        return picture.crop((left, top, picture.width - left, picture.height - top))

    return crop


def _caption(picture: Image.Image, number: int) -> Image.Image:
    bar = max(10, round(picture.height * 0.08))
    ground, ink = (("black", "white"), ("white", "black"))[number % 2]
    higher = Image.new("RGB", (picture.width, picture.height + bar), ground)
    higher.paste(picture)
    ImageDraw.Draw(higher).text(
        (3, picture.height), " ".join(_say(number, 6)), ink, ImageFont.load_default(max(6, bar * 0.7))
    )
    return higher


def _watermark(picture: Image.Image, number: int) -> Image.Image:
    """A plate with a name in one of the corners: a third of the width, an eighth of the height, hardly translucent."""
    width, height = max(20, round(picture.width * 0.33)), max(8, round(picture.height * 0.12))
    plate = Image.new("RGB", (width, height), "black")
    name = f"{_say(number, 1)[0]}.example"
    ImageDraw.Draw(plate).text((2, 0), name, "white", ImageFont.load_default(max(6, height * 0.75)))
    left, top = (number % 2) * (picture.width - width), (number // 2 % 2) * (picture.height - height)
    marked = picture.copy()
    under = picture.crop((left, top, left + width, top + height))
    marked.paste(Image.blend(under, plate, 0.9), (left, top))
    return marked


def _pad(picture: Image.Image, number: int) -> Image.Image:
    side = max(picture.size)
    return ImageOps.pad(picture, (side, side), color=("black", "white")[number % 2])


def _border(picture: Image.Image, number: int) -> Image.Image:
    """A border of a tenth of the shorter side."""
    return ImageOps.expand(picture, round(min(picture.size) * 0.1), ("white", "black")[number % 2])


def _grey(picture: Image.Image, _: int) -> Image.Image:
    return picture.convert("L").convert("RGB")


def _brighten(picture: Image.Image, _: int) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(1.2)


def _flatten(picture: Image.Image, _: int) -> Image.Image:
    return ImageEnhance.Contrast(picture).enhance(0.5)


def _bend(picture: Image.Image, number: int) -> Image.Image:
    gamma = (0.7, 1.4)[number % 2]
    return picture.point([round(255 * (level / 255) ** gamma) for level in range(256)] * 3)


def _sharpen(picture: Image.Image, _: int) -> Image.Image:
    return picture.filter(ImageFilter.UnsharpMask(2, 150, 0))


def _frame(picture: Image.Image, number: int) -> Image.Image:
    """A browser around it: a bar with an address above, a grey line at the other sides."""
    bar, line = max(28, round(picture.height * 0.1)), max(1, round(min(picture.size) * 0.01))
    framed = Image.new("RGB", (picture.width + 2 * line, picture.height + bar + line), (222, 225, 230))
    framed.paste(picture, (line, bar))
    pen = ImageDraw.Draw(framed)
    pen.rectangle((bar, bar // 5, framed.width - bar, bar - bar // 5), "white")
    pen.text((bar + 4, bar // 5), f"https://{_say(number, 1)[0]}.example", "black", ImageFont.load_default(bar * 0.45))
    return framed


def _mirror(picture: Image.Image, _: int) -> Image.Image:
    return ImageOps.mirror(picture)


def _say(number: int, count: int) -> list[str]:
    return random.Random(number).sample(WORDS, count)


EDITS: Mapping[str, Edit] = {
    "JPEG, quality 50": _compress,
    "half size": _halve,
    "5 % off each side": _crop(0.05),
    "10 % off each side": _crop(0.1),
    "caption bar below": _caption,
    "watermark in a corner": _watermark,
    "padded to a square": _pad,
    "border of 10 %": _border,
    "grey": _grey,
    "brightness x 1.2": _brighten,
    "half contrast": _flatten,
    "gamma 0.7 or 1.4": _bend,
    "sharpened": _sharpen,
    "browser frame": _frame,
    "mirrored": _mirror,
}
DEMANDED = frozenset(list(EDITS)[:10])
"""Edits that copies on the web have undergone most often, by which the thresholds were chosen."""


# -- templates: pictures of one layout that differ in what they say


def _print_lines(pen: ImageDraw.ImageDraw, lines: list[str], left: int, top: int, size: int) -> None:
    for row, line in enumerate(lines):
        pen.text((left, top + row * (size + 4)), line, "black", ImageFont.load_default(size))


def _draw_receipt(seed: random.Random) -> Image.Image:
    image = Image.new("RGB", (420, 900), "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, 420, 110), "black")
    pen.text((50, 14), "GREEN LEAF", "white", ImageFont.load_default(52))
    _print_lines(pen, ["12 Station Road", "Tel 555 0101 22"], 120, 120, 20)
    for row in range(24):
        pen.text((24, 180 + 24 * row), seed.choice(WORDS), "black", ImageFont.load_default(15))
        pen.text((330, 180 + 24 * row), f"{seed.randint(100, 9999) / 100:8.2f}", "black", ImageFont.load_default(15))
    pen.rectangle((20, 770, 400, 812), "black")
    pen.text((30, 774), f"TOTAL {seed.randint(1000, 99999) / 100:.2f}", "white", ImageFont.load_default(28))
    _print_lines(pen, ["Thank you for your visit"], 80, 850, 20)
    return image.convert("1", dither=Image.Dither.NONE).convert("RGB") if seed.random() < 0.5 else image


def _draw_bars(seed: random.Random) -> Image.Image:
    image = Image.new("RGB", (480, 320), "white")
    pen = ImageDraw.Draw(image)
    pen.line((50, 20, 50, 280, 460, 280), "black", 2)
    pen.text((90, 2), " ".join(seed.sample(WORDS, 4)), "black", ImageFont.load_default(16))
    for row in range(6):
        pen.line((46, 280 - 50 * row, 460, 280 - 50 * row), (210, 210, 210))
        pen.text((14, 272 - 50 * row), str(row * 20), "black")
        top = 280 - (60, 150, 210, 120, 180, 90)[row] - seed.randint(-20, 20)
        pen.rectangle((70 + 66 * row, top, 110 + 66 * row, 280), (60, 110, 190))
        pen.text((64 + 66 * row, 286), seed.choice(WORDS)[:8], "black")
    return image


def _draw_lines(seed: random.Random) -> Image.Image:
    image = Image.new("RGB", (480, 320), "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, 480, 36), (40, 60, 90))
    pen.text((20, 6), "Monthly figures", "white", ImageFont.load_default(20))
    pen.line((50, 50, 50, 280, 460, 280), "black", 2)
    for colour in ((200, 40, 40), (40, 90, 200)):
        level, points = seed.randint(80, 220), []
        for step in range(11):
            level = min(270, max(60, level + seed.randint(-50, 50)))
            points.append((55 + 40 * step, level))
        pen.line(points, colour, 3)
    return image


def _draw_form(seed: random.Random) -> Image.Image:
    image = Image.new("RGB", (700, 900), (250, 250, 245))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, 700, 90), (30, 70, 60))
    pen.text((60, 18), "APPLICATION FORM", "white", ImageFont.load_default(44))
    for row, name in enumerate(("Name", "Street", "Town", "Telephone", "Date", "Reason", "Amount", "Remarks")):
        pen.rectangle((20, 120 + 94 * row, 200, 190 + 94 * row), (200, 215, 205))
        pen.text((34, 140 + 94 * row), name, "black", ImageFont.load_default(20))
        pen.rectangle((210, 120 + 94 * row, 680, 190 + 94 * row), "white", "black")
        said = " ".join(seed.sample(WORDS, 3))[: seed.randint(8, 22)]
        pen.text((220, 138 + 94 * row), said, (20, 20, 120), ImageFont.load_default(22))
    return image


def _draw_dialogue(seed: random.Random) -> Image.Image:
    image = Image.new("RGB", (440, 300), (236, 236, 236))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, 440, 28), (70, 100, 160))
    pen.text((10, 5), " ".join(seed.sample(WORDS, 2)), "white", ImageFont.load_default(15))
    for row in range(6):
        pen.rectangle((24, 48 + 32 * row, 38, 62 + 32 * row), "white", "black")
        pen.text((50, 46 + 32 * row), " ".join(seed.sample(WORDS, 4)), "black", ImageFont.load_default(15))
    for left in (220, 330):
        pen.rectangle((left, 258, left + 90, 286), (220, 220, 220), (120, 120, 120))
        pen.text((left + 16, 262), seed.choice(WORDS), "black", ImageFont.load_default(14))
    return image


def _draw_slide(seed: random.Random) -> Image.Image:
    image = Image.new("RGB", (640, 400), (28, 44, 84))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 70, 640, 74), (230, 160, 40))
    pen.text((30, 18), " ".join(seed.sample(WORDS, 3)).title(), "white", ImageFont.load_default(32))
    for row in range(5):
        pen.ellipse((40, 112 + 52 * row, 50, 122 + 52 * row), (230, 160, 40))
        pen.text((66, 102 + 52 * row), " ".join(seed.sample(WORDS, 5)), "white", ImageFont.load_default(22))
    return image


TEMPLATES: Mapping[str, Callable[[random.Random], Image.Image]] = {
    "receipts": _draw_receipt,
    "bar charts": _draw_bars,
    "line charts": _draw_lines,
    "forms": _draw_form,
    "dialogues": _draw_dialogue,
    "slides": _draw_slide,
}


def draw_template(name: str, number: int) -> Image.Image:
    """The picture with this number of a template."""
    return TEMPLATES[name](random.Random(f"{name} {number}"))
