"""Pictures of a few bright shapes, and true sentences, questions and answers about them.

First part of the quickstart data: `generate.py` puts these pictures into web documents and question-answer rows.
A scene is a value; painting it and talking about it are functions of it, so every sentence is true by construction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Literal

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from collections.abc import Sequence

Layout = Literal["single", "pair", "count"]
Point = tuple[float, float]

COLOURS = {
    "red": (214, 28, 40),
    "green": (24, 152, 62),
    "blue": (28, 82, 214),
    "yellow": (246, 210, 24),
    "orange": (244, 128, 16),
    "purple": (120, 44, 168),
    "pink": (250, 136, 190),
    "brown": (136, 82, 36),
}
TONES = {"white": (255, 255, 255), "grey": (158, 158, 158), "black": (16, 16, 16), "beige": (236, 224, 196)}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
PATTERNS = ("striped", "dotted", "checked", "patched")
PLACES = ("left", "right", "top", "bottom")
COUNTS = ("one", "two", "three", "four")
WIDE = ((160, 120), (176, 132), (192, 128), (192, 108), (240, 180), (224, 112), (288, 96))
SQUARE = ((128, 128), (176, 176), (128, 128))
TALL = tuple((height, width) for width, height in WIDE)
"""(width, height) in pixels, of many ratios, so that tilings differ."""

PALETTE = [*TONES.values(), *COLOURS.values()]
INDEX = {name: index for index, name in enumerate([*TONES, *COLOURS])}


@dataclass(frozen=True, slots=True)
class Shape:
    """One shape; centre and radius in pixels."""

    kind: str
    colour: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True)
class Scene:
    """What a picture shows. Two shapes of a pair stand in reading order."""

    layout: Layout
    size: tuple[int, int]
    tone: str  # what the pattern is drawn over
    pattern: str
    shapes: tuple[Shape, ...]
    place: str = ""  # of a single shape
    seed: str = ""  # of the pattern's details


def imagine(number: int, rng: Random, layout: Layout) -> Scene:
    """A scene of the given layout.

    Colour, kind, count and place go round with `number`, so that answers are balanced.
    """
    colours, kinds = [*COLOURS], list(SHAPES)
    colour, kind = colours[number % 8], kinds[(number // 8 + number) % 6]
    tone, pattern = rng.choice([*TONES]), PATTERNS[(number // 5 + number) % 4]
    place = PLACES[(number // 3) % 4] if layout == "single" else ""
    fitting = {"left": WIDE + SQUARE, "right": WIDE + SQUARE, "top": TALL + SQUARE, "bottom": TALL + SQUARE}
    size = rng.choice(fitting.get(place, WIDE + SQUARE + TALL))
    if layout == "single":
        shapes = _single(kind, colour, place, size, rng)
    elif layout == "pair":
        other = kinds[(kinds.index(kind) + rng.randrange(1, 6)) % 6]
        shapes = _pair((kind, other), (colour, colours[(number + rng.randrange(1, 8)) % 8]), size, rng)
    else:
        shapes = _several(1 + (number // 2) % 4, kind, colour, size, rng)
    return Scene(layout, size, tone, pattern, shapes, place, seed=str(rng.random()))


def _single(kind: str, colour: str, place: str, size: tuple[int, int], rng: Random) -> tuple[Shape, ...]:
    width, height = size
    radius = min(width, height) * rng.uniform(0.28, 0.38)
    near, free = radius + 3, rng.uniform(0.42, 0.58)
    x = {"left": near, "right": width - near}.get(place, width * free)
    y = {"top": near, "bottom": height - near}.get(place, height * free)
    return (Shape(kind, colour, x, y, radius),)


def _pair(kinds: Sequence[str], colours: Sequence[str], size: tuple[int, int], rng: Random) -> tuple[Shape, ...]:
    """Two different shapes side by side in wide pictures, one above the other in tall ones."""
    width, height = size
    shapes = []
    for index, (kind, colour) in enumerate(zip(kinds, colours, strict=True)):
        radius = min(min(size) * 0.4, max(size) * 0.21) * rng.uniform(0.85, 1)
        along = (0.25 + 0.5 * index) * max(size)
        across = min(size) / 2 + rng.uniform(-1, 1) * max(0.0, min(size) / 2 - radius - 3)
        x, y = (along, across) if width >= height else (across, along)
        shapes.append(Shape(kind, colour, x, y, radius))
    return tuple(shapes)


def _several(count: int, kind: str, colour: str, size: tuple[int, int], rng: Random) -> tuple[Shape, ...]:
    """`count` equal shapes, each somewhere in its own cell of a grid that fits the picture."""
    width, height = size
    columns = max(1, min(count, round(math.sqrt(count * width / height))))
    rows = math.ceil(count / columns)
    cell = (width / columns, height / rows)
    radius = min(min(cell) * 0.4, min(size) * 0.3) * rng.uniform(0.85, 1)
    shapes = []
    for index in range(count):
        x, y = ((index % columns + 0.5) * cell[0], (index // columns + 0.5) * cell[1])
        sway = [rng.uniform(-1, 1) * max(0.0, side / 2 - radius - 2) for side in cell]
        shapes.append(Shape(kind, colour, x + sway[0], y + sway[1], radius))
    return tuple(shapes)


def paint(scene: Scene) -> Image.Image:
    """The picture of a scene, with a palette of the tones and colours in use here (mode P, no smoothing)."""
    image = Image.new("P", scene.size, INDEX[scene.tone])
    image.putpalette([value for colour in PALETTE for value in colour])
    pen = ImageDraw.Draw(image)
    _background(pen, scene, Random(scene.seed))
    for shape in scene.shapes:
        _shape(pen, shape, scene)
    return image


def _background(pen: ImageDraw.ImageDraw, scene: Scene, rng: Random) -> None:
    """Draw large figures in tones other than the scene's, so that no two pictures are alike whatever they show."""
    (width, height), others = scene.size, [INDEX[tone] for tone in TONES if tone != scene.tone]
    if scene.pattern == "striped":
        slant, upright, start = rng.choice([-60, -25, 0, 25, 60]), rng.random() < 0.5, -60
        while start < max(scene.size) + 60:
            thick = rng.randrange(6, 40)
            ends = (start, 0, start + slant, height) if upright else (0, start, width, start + slant)
            pen.line(ends, fill=rng.choice(others), width=thick)
            start += thick + rng.randrange(6, 40)
    elif scene.pattern == "dotted":
        for _ in range(rng.randrange(7, 16)):
            x, y, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.06, 0.24) * min(scene.size)
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=rng.choice(others))
    elif scene.pattern == "checked":
        step = rng.randrange(20, 44)
        for y in range(-rng.randrange(step), height, step):
            for x in range(-step, width, step):
                if rng.random() < 0.5:
                    pen.rectangle((x, y, x + step - 1, y + step - 1), fill=rng.choice(others))
    else:
        for _ in range(rng.randrange(3, 7)):
            x, y, reach = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.3, 0.7) * min(scene.size)
            corners = [(x + reach * rng.uniform(-1, 1), y + reach * rng.uniform(-1, 1)) for _ in range(4)]
            pen.polygon(corners, fill=rng.choice(others))


def _shape(pen: ImageDraw.ImageDraw, shape: Shape, scene: Scene) -> None:
    x, y, radius, colour = shape.x, shape.y, shape.radius, INDEX[shape.colour]
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape.kind == "circle":
        pen.ellipse(box, fill=colour)
    elif shape.kind == "square":
        pen.rectangle(box, fill=colour)
    elif shape.kind == "ring":
        pen.ellipse(box, fill=colour)
        hole = radius * 0.45
        pen.ellipse((x - hole, y - hole, x + hole, y + hole), fill=INDEX[scene.tone])
    elif shape.kind == "cross":
        arm = radius * 0.36
        pen.rectangle((x - radius, y - arm, x + radius, y + arm), fill=colour)
        pen.rectangle((x - arm, y - radius, x + arm, y + radius), fill=colour)
    else:
        pen.polygon(outline(shape), fill=colour)


def outline(shape: Shape) -> list[Point]:
    """Corners of a triangle, a star or something round (48 corners), clockwise from the topmost."""
    steps, inner = {"triangle": (3, 1.0), "star": (10, 0.45)}.get(shape.kind, (48, 1.0))
    points = []
    for step in range(steps):
        angle = 2 * math.pi * step / steps
        reach = shape.radius * (inner if step % 2 else 1)
        points.append((shape.x + reach * math.sin(angle), shape.y - reach * math.cos(angle)))
    return points


def plural(kind: str, count: int) -> str:
    """`star` or `stars`."""
    return kind if count == 1 else {"cross": "crosses"}.get(kind, f"{kind}s")


def article(word: str) -> str:
    """`an orange` or `a red`."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def joined(scene: Scene) -> tuple[str, str]:
    """How the first shape of a pair stands to the second, and the other way round."""
    return ("left of", "right of") if scene.size[0] >= scene.size[1] else ("above", "below")


def describe(scene: Scene, rng: Random) -> str:
    """One true sentence about the whole picture."""
    first, where = scene.shapes[0], f"on a {scene.pattern} background"
    name = f"{first.colour} {first.kind}"
    if scene.layout == "single":
        side = f"near the {scene.place}"
        forms = [
            f"A large {name} {side} {where}.",
            f"There is {article(name)} {side}, {where}.",
            f"The picture shows {article(name)} {where}, {side}.",
        ]
    elif scene.layout == "pair":
        second = article(f"{scene.shapes[1].colour} {scene.shapes[1].kind}")
        relation = joined(scene)[0]
        start = article(name)
        forms = [
            f"{start.capitalize()} {relation} {second}, {where}.",
            f"The picture shows {start} {relation} {second} {where}.",
        ]
    else:
        count = len(scene.shapes)
        group = f"{COUNTS[count - 1]} {first.colour} {plural(first.kind, count)}"
        verb = "is" if count == 1 else "are"
        forms = [
            f"{group.capitalize()} {where}.",
            f"There {verb} {group} {where}.",
            f"The picture shows {group} {where}.",
        ]
    return rng.choice(forms)


TELL_QUESTIONS = ("Describe the picture.", "What does the picture show?", "Say in one sentence what you see.")
PATTERN_QUESTIONS = ("Which pattern has the background?", "What is the background like?")

Turn = tuple[str, str]
"""A question and its answer."""


def questions(scene: Scene, rng: Random) -> list[Turn]:
    """All questions that this scene answers, each kind once, in the order in which they should be preferred."""
    first = scene.shapes[0]
    pattern = (rng.choice(PATTERN_QUESTIONS), scene.pattern)
    tell = (rng.choice(TELL_QUESTIONS), describe(scene, rng))
    if scene.layout == "single":
        return [
            (rng.choice([f"What colour is the {first.kind}?", f"Name the colour of the {first.kind}."]), first.colour),
            (rng.choice([f"Which shape is {first.colour}?", "What shape is shown?", "Name the shape."]), first.kind),
            (rng.choice([f"Where is the {first.kind}?", "Near which side is the shape?"]), scene.place),
            pattern,
            tell,
        ]
    if scene.layout == "count":
        kinds = plural(first.kind, 2)
        return [
            (
                rng.choice([f"How many {kinds} are there?", "How many shapes are there?", f"Count the {kinds}."]),
                COUNTS[len(scene.shapes) - 1],
            ),
            (
                f"What colour are the {kinds}?" if len(scene.shapes) > 1 else f"What colour is the {first.kind}?",
                first.colour,
            ),
            ("Which kind of shape is shown?", first.kind),
            pattern,
            tell,
        ]
    return _pair_questions(scene, rng)


def _pair_questions(scene: Scene, rng: Random) -> list[Turn]:
    """Questions about two shapes; the shape asked for is drawn, so that yes and no are equally frequent."""
    pair, relations = list(scene.shapes), joined(scene)
    asked, other = rng.sample(pair, 2)
    relation = rng.choice(relations)
    true = relation == relations[pair.index(asked)]
    end = rng.randrange(2)
    place = (("on the left", "on the right") if relations[0] == "left of" else ("at the top", "at the bottom"))[end]
    return [
        (f"Is the {asked.kind} {relation} the {other.kind}?", "yes" if true else "no"),
        (f"What colour is the {asked.kind}?", asked.colour),
        (f"Which shape is {place}?", pair[end].kind),
        (f"What colour is the {other.kind}?", other.colour),
        (rng.choice(TELL_QUESTIONS), describe(scene, rng)),
    ]
