"""Makes the data of the shipped ablations: the quickstart's pictures in the number that a comparison needs.

    python -m tools.quickstart.ablations [FOLDER]

The folder is recipes/quickstart/ablations unless another is named. Writes one Parquet file for each source of
`recipes/quickstart_ablations.yaml`. Nothing is planted here: every picture is another one, every answer is true, and
a question's answers are balanced. docs/findings.md says why there are so many. In the public domain (CC0-1.0).
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from tools.quickstart.album import SEED, encode
from tools.quickstart.generate import DATA
from tools.quickstart.scenes import (
    COLOURS,
    COUNTS,
    PLACES,
    SHAPES,
    TELL_QUESTIONS,
    Layout,
    Scene,
    Turn,
    article,
    describe,
    imagine,
    paint,
    questions,
)
from tools.quickstart.tables import QUIZ, WEB, Slot, conversation, document, write_parquet

if TYPE_CHECKING:
    from collections.abc import Callable

LAYOUTS: tuple[Layout, ...] = ("single", "pair", "count")
"""The layouts in the order in which they take turns."""

Make = tuple[int, "Callable[[int, Random], dict[str, Any]]"]
"""How many rows, and a row by its number."""


def draw_scene(number: int, rng: Random) -> Scene:
    """A scene whose layout, colour and shape go round with `number`."""
    return imagine(number // len(LAYOUTS), rng, LAYOUTS[number % len(LAYOUTS)])


def ask_shown(number: int, rng: Random) -> dict[str, Any]:
    """A picture and three questions about what it shows; of every fourth whether a shape is there, which it is."""
    scene = draw_scene(number, rng)
    turns = questions(scene, rng)[:3]
    if number % 4 == 3:
        turns[rng.randrange(3)] = _ask_existence(rng.choice(scene.shapes).kind, shown=True)
    return _show(scene, turns)


def ask_absent(number: int, rng: Random) -> dict[str, Any]:
    """A picture, and questions about shapes and colours that it does not show.

    Two in three take for granted what is not there, as LRV-Instruction's negative instructions do.
    """
    scene = draw_scene(number, rng)
    kinds = [kind for kind in SHAPES if kind not in {shape.kind for shape in scene.shapes}]
    absent, other = rng.sample(kinds, 2)
    colour = rng.choice([colour for colour in COLOURS if colour not in {shape.colour for shape in scene.shapes}])
    asked = [
        _ask_existence(absent, shown=False),
        (f"What colour is the {other}?", f"there is no {other}"),
        (f"Which shape is {colour}?", f"nothing is {colour}"),
    ]
    return _show(scene, rng.sample(asked, 2))


def tell_shown(number: int, rng: Random) -> dict[str, Any]:
    """A picture and a sentence that describes it."""
    scene = draw_scene(number, rng)
    return _show(scene, [(rng.choice(TELL_QUESTIONS), describe(scene, rng))])


def talk(number: int, rng: Random) -> dict[str, Any]:
    """Three turns without a picture: words to repeat, to turn round and to count."""
    words = [rng.choice([*COLOURS]), rng.choice(SHAPES), rng.choice(PLACES)]
    first, second = rng.randrange(1, 3), rng.randrange(1, 3)
    total = COUNTS[first + second - 1]
    turns = [
        (f"Say this: {' '.join(words)}.", " ".join(words)),
        (f"Say this the other way round: {words[0]} {words[1]}.", f"{words[1]} {words[0]}"),
        (f"How many are {COUNTS[first - 1]} and {COUNTS[second - 1]}?", total),
        (f"Is {words[number % 2]} a colour?", "no" if number % 2 else "yes"),
    ]
    return conversation([], rng.sample(turns, 3))


def write_text(number: int, rng: Random) -> dict[str, Any]:
    """A document of five sentences about pictures that are not shown."""
    sentences = [describe(draw_scene(rng.randrange(1000), rng), rng) for _ in range(5)]
    return document(f"ablations-{number}", [Slot(text=" ".join(sentences))])


def _ask_existence(kind: str, *, shown: bool) -> Turn:
    return f"Is there {article(kind)}?", "yes" if shown else "no"


def _show(scene: Scene, turns: list[Turn]) -> dict[str, Any]:
    return conversation([encode(paint(scene), "png")], turns)


MADE: dict[str, Make] = {
    "questions": (1600, ask_shown),
    "denials": (480, ask_absent),
    "captions": (480, tell_shown),
    "talk": (480, talk),
    "texts": (480, write_text),
}
"""The sources."""


def main(folder: Path) -> None:
    """Write all sources below `folder`, in place of what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for source, (number, make) in MADE.items():
        rows = [make(index, Random(f"{SEED}/ablations/{source}/{index}")) for index in range(number)]
        write_parquet(folder / f"{source}.parquet", WEB if source == "texts" else QUIZ, rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA / "ablations")
