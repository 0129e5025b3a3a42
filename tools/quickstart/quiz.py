"""The question-answer rows of the quickstart data, in The Cauldron's columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from PIL import Image

from tools.quickstart.album import SEED, Album, encode
from tools.quickstart.plants import Member, Plant, Row, Twins
from tools.quickstart.scenes import (
    COLOURS,
    SHAPES,
    Layout,
    Scene,
    paint,
    questions,
)
from tools.quickstart.tables import Slot, conversation
from tools.quickstart.texts import say, write

if TYPE_CHECKING:
    from tools.quickstart.web import Web

LAYOUTS: tuple[Layout, ...] = ("single", "count", "single", "pair", "single")
"""The layouts in the order in which they take turns."""

ROWS = 400
TWO_PICTURES = 40

CHINESE = ("zh-hans", "zh-hant")
OTHERS = ("ja", "de", "fr")


@dataclass(slots=True)
class Quiz:
    """The rows so far and the duplicates among them."""

    album: Album
    rows: list[Row] = field(default_factory=list)
    twins: list[Twins] = field(default_factory=list)
    scenes: dict[str, Scene] = field(default_factory=dict)  # of rows with one picture, by name

    def ask(self, name: str, layout: Layout, turns: int) -> Row:
        """A row of one new picture and its first `turns` questions; the last may ask for a description."""
        scene, rng = self.album.scene(layout), Random(f"{SEED}/quiz/{name}")
        self.scenes[name] = scene
        known = questions(scene, rng)
        asked = [*known[: turns - 1], rng.choice(known[turns - 1 :])]
        row = Row(name, conversation([encode(paint(scene), "jpeg" if len(self.rows) % 6 == 5 else "png")], asked))
        self.rows.append(row)
        return row

    def twin(self, reason: str, why: str, *members: Member) -> None:
        """Note that these are duplicates of each other."""
        self.twins.append(Twins(reason, why, members))


def rows(album: Album) -> Quiz:
    """All question-answer rows, in the order in which they were planted; `generate.py` mixes them."""
    quiz = Quiz(album)
    for index in range(ROWS):
        quiz.ask(f"quiz-plain-{index}", LAYOUTS[index % len(LAYOUTS)], 2 + index % 3)
    for plant in (_two_pictures, _languages, _copies, _bad_pictures, _bad_rows):
        plant(quiz)
    return quiz


def _two_pictures(quiz: Quiz) -> None:
    """Rows of two pictures whose shapes differ in kind and colour."""
    for index in range(TWO_PICTURES):
        rng = Random(f"{SEED}/two/{index}")
        first, second = quiz.album.scene("single"), quiz.album.scene("single")
        while second.shapes[0].kind == first.shapes[0].kind:
            second = quiz.album.scene("single")
        shown = (first.shapes[0], second.shapes[0])
        pick = rng.randrange(2)
        turns = [
            (f"What colour is the shape in the {('first', 'second')[pick]} picture?", shown[pick].colour),
            (f"Which picture shows a {shown[1 - pick].kind}?", f"the {('first', 'second')[1 - pick]} one"),
            ("Name the shapes in order.", f"{shown[0].kind}, {shown[1].kind}"),
        ]
        quiz.rows.append(
            Row(
                f"quiz-two-{index}",
                conversation([encode(paint(scene), "png") for scene in (first, second)], turns[: 2 + index % 2]),
            )
        )


def _languages(quiz: Quiz) -> None:
    """Rows and turns in other languages. A row keeps its other turns; a question takes its answer along."""
    for index in range(10):
        language = CHINESE[index % 2]
        row = quiz.ask(f"quiz-all-{language}-{index}", "single", 1)
        row.content["texts"] = [_foreign(quiz.scenes[row.name], language)]
        row.plants.append(Plant("dropped", "language", f"its only turn is in Chinese ({language})"))
    for index in range(10):
        language = CHINESE[index % 2]
        row = quiz.ask(f"quiz-turn-{language}-{index}", "single", 3)
        turn = _foreign(quiz.scenes[row.name], language)
        if index % 5 == 4:
            turn["assistant"] = row.content["texts"][1]["assistant"]
        row.content["texts"][1] = turn
        row.plants.append(Plant("dropped", "language", f"a turn whose question is in Chinese ({language})", turn=1))
    for index in range(12):
        language = OTHERS[index % 3]
        row = quiz.ask(f"quiz-turn-{language}-{index}", "single", 2)
        row.content["texts"].append(_foreign(quiz.scenes[row.name], language))
        row.plants.append(Plant("kept", "", f"a turn in another language ({language})", turn=2))


def _foreign(scene: Scene, language: str) -> dict[str, str]:
    """One turn about the colour of a single shape."""
    shape = scene.shapes[0]
    question, answer = (say(part, language, shape.kind, shape.colour) for part in ("question", "answer"))
    return {"user": question, "assistant": answer, "source": "quickstart_shapes"}


def _copies(quiz: Quiz) -> None:
    """The unit is (picture, question, answer): the same picture with other questions stays."""
    for index in range(8):
        row = quiz.ask(f"quiz-copied-{index}", "single", 2)
        quiz.rows.append(Row(f"quiz-copy-{index}", row.content))
        quiz.twin(
            "exact_image", "the same picture, questions and answers", Member(row.name), Member(f"quiz-copy-{index}")
        )
    for index in range(8):
        row = quiz.ask(f"quiz-recoded-{index}", "single", 2)
        row.content["images"][0]["bytes"] = encode(paint(quiz.scenes[row.name]), "png")
        again = {**row.content, "images": [{"bytes": encode(paint(quiz.scenes[row.name]), "jpeg"), "path": None}]}
        quiz.rows.append(Row(f"quiz-recode-{index}", again))
        quiz.twin(
            "near_image",
            "the same picture as JPEG with the same questions and answers",
            Member(row.name),
            Member(f"quiz-recode-{index}"),
        )
    for index in range(4):
        row = quiz.ask(f"quiz-partly-{index}", "single", 2)
        known = questions(quiz.scenes[row.name], Random(f"{SEED}/partly/{index}"))
        row.content["texts"] = conversation([], known[:2])["texts"]
        part = Row(f"quiz-part-{index}", {**row.content, "texts": conversation([], known[1:3])["texts"]})
        quiz.rows.append(part)
        quiz.twin(
            "exact_image",
            "one of two questions about the same picture",
            Member(row.name, turn=1),
            Member(part.name, turn=0),
        )
    for index in range(8):
        row = quiz.ask(f"quiz-asked-{index}", "single", 2)
        known = questions(quiz.scenes[row.name], Random(f"{SEED}/again/{index}"))
        row.content["texts"] = conversation([], known[:2])["texts"]
        plants = [Plant("kept", "", "the picture of another row with another question")]
        quiz.rows.append(
            Row(f"quiz-ask-{index}", {**row.content, "texts": conversation([], known[2:3])["texts"]}, plants)
        )


def _bad_pictures(quiz: Quiz) -> None:
    """A question about a picture that is not there teaches to make things up, so the row goes with its picture."""
    whole = encode(paint(quiz.album.scene("count")), "jpeg")
    flat = {"a picture of 12 pixels": (12, 12), "a picture 24 times as wide as high": (720, 30)}
    bad: list[tuple[Plant, bytes]] = [
        *(
            (Plant("failed", "undecodable", "a picture cut off in the middle"), whole[: len(whole) * part // 10])
            for part in (3, 5)
        ),
        (
            Plant("failed", "undecodable", "a web page in place of a picture"),
            b"<!DOCTYPE html><html><body>Not found</body></html>",
        ),
        *(
            (Plant("dropped", "required_lost", why), encode(Image.new("RGB", size, (40, 160, 90)), "png"))
            for why, size in flat.items()
        ),
    ]
    for index, (plant, data) in enumerate(bad):
        quiz.rows.append(
            Row(
                f"quiz-bad-picture-{index}",
                conversation(
                    [data], [("What colour is the shape?", [*COLOURS][index]), ("Name the shape.", SHAPES[index])]
                ),
                [plant],
            )
        )


def _bad_rows(quiz: Quiz) -> None:
    """Rows that have not The Cauldron's form, and rows that only look like it."""
    picture = encode(paint(quiz.album.scene("count")), "png")
    turn = ("How many shapes are there?", "one")
    bad: list[tuple[str, str, dict[str, Any]]] = [
        (
            "bad_row",
            "a picture without bytes",
            {**conversation([picture], [turn]), "images": [{"bytes": None, "path": "lost.png"}]},
        ),
        (
            "bad_row",
            "a turn without an answer",
            {
                **conversation([picture], []),
                "texts": [{"user": turn[0], "assistant": None, "source": "quickstart_shapes"}],
            },
        ),
        ("empty_row", "no turns", conversation([picture], [])),
    ]
    for reason, why, row in bad:
        quiz.rows.append(Row(f"quiz-bad: {why}", row, [Plant("failed", reason, why)]))
    for index, turn in enumerate(
        [("Which colour do you get from blue and yellow?", "green"), ("How many sides has a triangle?", "three")]
    ):
        quiz.rows.append(
            Row(f"quiz-text-{index}", conversation([], [turn]), [Plant("kept", "", "a question without a picture")])
        )


def show_in(web: Web, quiz: Quiz) -> list[Twins]:
    """Put pictures of question-answer rows into web documents, where they stay.

    Texts without a picture do not.
    """
    named = [name for name in quiz.scenes if name.startswith("quiz-plain-")]
    by_name = {row.name: row for row in quiz.rows}
    for index in range(10):
        row = by_name[named[3 * index]]
        data, ending = row.content["images"][0]["bytes"], "png"
        if index % 2:
            data, ending = encode(paint(quiz.scenes[row.name]), "lossy webp"), "webp"
        article = web.article(f"shared-{index}", "en", 6, 1)
        article.plants.append(
            Plant("kept", "", "the picture of a question-answer row, here in a story", node=len(article.content))
        )
        article.content.append(web.put(f"shared-{index}.{ending}", data, "", quiz.scenes[row.name].size))
    twins = []
    for index in range(3):
        told = write("en", Random(f"{SEED}/told/{index}"), 5)
        question, answer = f"What do you know about this: {told.title}?", told.paragraphs(1)[0]
        asked, printed = (
            Row(f"quiz-told-{index}", conversation([], [(question, answer)])),
            Row(f"told-{index}", [Slot(text=f"{question}\n\n{answer}")]),
        )
        quiz.rows.append(asked)
        web.rows.append(printed)
        twins.append(
            Twins(
                "exact_text", "a question and its answer, printed on a page", (Member(asked.name), Member(printed.name))
            )
        )
    return twins
