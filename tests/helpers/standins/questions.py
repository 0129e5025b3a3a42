"""Stand-ins for tables of questions about images: The Cauldron, Docmatix and FineVision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from tests.helpers.standins.dataset import SUBSETS, Dataset
from tests.helpers.standins.material import Material
from tests.helpers.standins.tree import IMAGE, STRING, Row, Tree, as_image, number_shard

CAULDRON_SUBSETS = SUBSETS["HuggingFaceM4/the_cauldron"]
TWO_IMAGES = frozenset({"mimic_cgd", "nlvr2", "spot_the_diff"})
"""Sets whose rows have two images."""

TURN = {"user": STRING, "assistant": STRING, "source": STRING}
CAULDRON = {"images": pa.list_(IMAGE), "texts": pa.list_(pa.struct(TURN))}
DOCMATIX_HASH = "6994aa69c3d83d12"


def make_question_row(material: Material, number: int, images: int = 1, source: str = "") -> dict[str, Any]:
    """A row of images and one to three questions and answers."""
    turns = [
        {
            "user": material.question(number) if not place else f"{material.question(number)} ({place + 1})",
            "assistant": material.sentences(number, place + 1),
            "source": source,
        }
        for place in range(1 + number % 3)
    ]
    return {"images": [as_image(material.picture(number, place)) for place in range(images)], "texts": turns}


def _list_odd(row: Mapping[str, Any]) -> list[Row]:
    """A row whose image has no bytes, one whose turn has no answer, and one without turns."""
    first = row["texts"][0]
    return [
        ({**row, "images": [{"bytes": None, "path": "lost.png"}]}, "bad_row"),
        ({**row, "texts": [{**first, "assistant": None}]}, "bad_row"),
        ({**row, "texts": []}, "empty_row"),
    ]


def write_cauldron(tree: Tree, rows: Mapping[str, int]) -> None:
    """A folder per set."""
    tree.write_card("", {name: {"train": f"{name}/train-*"} for name in CAULDRON_SUBSETS})
    for subset, count in rows.items():
        material, images = tree.material(subset), 2 if subset in TWO_IMAGES else 1
        good = [make_question_row(material, number, images, subset) for number in range(count)]
        mixed = tree.mix(good, _list_odd(make_question_row(material, 90, images, subset)))
        tree.write_shards(lambda place, parts, subset=subset: f"{subset}/{number_shard(place, parts)}", CAULDRON, mixed)


def write_docmatix(tree: Tree, rows: Mapping[str, int]) -> None:
    """Pages of PDFs as images, several in a row; the PDFs themselves; and the small subset of an experiment."""
    tree.write_card(
        "mit",
        {
            "images": {"train": "data/train-*"},
            "pdf": {"train": "pdf/train-*"},
            "zero-shot-exp": {"train": "zero-shot-exp/train-*", "test": "zero-shot-exp/test-*"},
        },
        task_categories=["visual-question-answering"],
    )
    for subset, count in rows.items():
        material = tree.material(subset)
        good = [_docmatix_row(material, number) for number in range(count)]
        if subset == "pdf":
            _write_docmatix_pdfs(tree, good)
            continue
        mixed = tree.mix(good, _list_odd(_docmatix_row(material, 90)))
        stem = "data/train-00000-of-01106-" + DOCMATIX_HASH if subset == "images" else f"{subset}/train-00000-of-00002"
        tree.write_parquet(f"{stem}.parquet", CAULDRON, mixed)
        if subset == "zero-shot-exp":
            tree.write_parquet(f"{subset}/{number_shard(0, 1, 'test')}", CAULDRON, [(good[0], "")])


def _docmatix_row(material: Material, number: int) -> dict[str, Any]:
    return make_question_row(material, number, 1 + number % 3, f"PDFA key: {number:07d}")


def _write_docmatix_pdfs(tree: Tree, good: list[dict[str, Any]]) -> None:
    rows = [({"pdf": b"%PDF-1.4\n%%EOF\n", "texts": row["texts"]}, "") for row in good]
    name = "pdf/train-00000-of-00089-025063f946c5d869.parquet"
    tree.write_parquet(name, {"pdf": pa.binary(), "texts": CAULDRON["texts"]}, rows)
    del tree.files[name]  # nothing of vlmill reads it


def write_lnqa(tree: Tree, rows: Mapping[str, int]) -> None:
    """One image a row, with its questions and answers; one row has no image, one no answer."""
    tree.write_card("", {"default": {"train": "data/train-*", "validation": "data/validation-*"}})
    material = tree.material("default")

    def make(number: int) -> dict[str, Any]:
        row = make_question_row(material, number)
        turns = [{"question": turn["user"], "answer": turn["assistant"]} for turn in row["texts"]]
        return {"image": row["images"][0], "qa": turns}

    spare = make(90)
    odd: list[Row] = [
        ({**spare, "image": {"bytes": None, "path": None}}, "bad_row"),
        ({**spare, "qa": [{"question": "What?", "answer": None}]}, "bad_row"),
    ]
    turn = pa.struct({"question": STRING, "answer": STRING})
    columns = {"image": IMAGE, "qa": pa.list_(turn)}
    mixed = tree.mix(map(make, range(rows["default"])), odd)
    tree.write_shards(lambda place, parts: f"data/{number_shard(place, parts)}", columns, mixed)
    tree.write_parquet(f"data/{number_shard(0, 1, 'validation')}", columns, [(make(91), "")])


AXES = ("relevance", "visual_dependency", "image_correspondence", "formatting")
FINEVISION_SUBSETS = (
    "coco_colors",
    "densefusion_1m",
    "DoclingMatix",
    "sharegpt4o",
    "localized_narratives",
    "LLaVA_Instruct_150K",
    "text_OpenMathInstruct-2",
)


def write_finevision(tree: Tree, rows: Mapping[str, int]) -> None:
    """A folder per set, with ratings that some sets lack."""
    tree.write_card("", {name: {"train": f"{name}/train-*"} for name in FINEVISION_SUBSETS})
    turn = pa.struct({"user": STRING, "assistant": STRING})
    columns = {"images": pa.list_(IMAGE), "texts": pa.list_(turn), "source": STRING}
    for axis in AXES:
        columns |= {f"{axis}_ratings": pa.list_(pa.int64()), f"{axis}_min": pa.int64()}
    for subset, count in rows.items():
        good = list(_finevision_rows(tree.material(subset), subset, range(count)))
        (spare,) = _finevision_rows(tree.material(subset), subset, [90])
        odd = _list_odd(spare)[1:] if subset.startswith("text_") else _list_odd(spare)
        tree.write_shards(
            lambda place, parts, subset=subset: f"{subset}/{number_shard(place, parts)}",
            columns,
            tree.mix(good, odd),
        )


def _finevision_rows(material: Material, subset: str, numbers: Any) -> Iterator[dict[str, Any]]:
    for number in numbers:
        row = make_question_row(material, number, 0 if subset.startswith("text_") else 1)
        texts = [{name: turn[name] for name in ("user", "assistant")} for turn in row["texts"]]
        rated = {f"{axis}_ratings": [1 + (number + turn) % 5 for turn in range(len(texts))] for axis in AXES}
        lowest = {f"{axis}_min": min(rated[f"{axis}_ratings"]) for axis in AXES}
        ratings = dict.fromkeys((*rated, *lowest)) if number % 5 == 4 else {**rated, **lowest}
        yield {"images": row["images"], "texts": texts, "source": subset, **ratings}


DATASETS = (
    Dataset(
        "HuggingFaceM4/the_cauldron",
        write_cauldron,
        files="SET/train-*.parquet, 50 sets",
        shape="images: list of images, texts: list of user, assistant, source",
        kind="cauldron",
        licence="",
        known="card: configs, features; licences are those of each set. The text-only sets of Idefics2 are not in it",
        guessed="rows whose image or answer is missing",
        subsets=CAULDRON_SUBSETS,
    ),
    Dataset(
        "HuggingFaceM4/Docmatix",
        write_docmatix,
        files="data/train-*.parquet (images), pdf/train-*.parquet, zero-shot-exp/{train,test}-*.parquet",
        shape="images: list of pages, texts: list of user, assistant, source; in the config pdf the PDF itself",
        kind="cauldron",
        remark="The config pdf is not read.",
        licence="mit",
        known="tree pages of the repository: folders, file names with hashes, configs, licence",
        guessed="the features of pdf; rows whose image or answer is missing",
        subsets=("images", "pdf", "zero-shot-exp"),
    ),
    Dataset(
        "vikhyatk/lnqa",
        write_lnqa,
        files="data/train-*.parquet, data/validation-*.parquet",
        shape="image, qa: list of question and answer",
        kind="cauldron",
        options={"images": "image", "turns": "qa", "question": "question", "answer": "answer"},
        licence="",
        known="the script for Idefics' fine-tuning sets, and ms-swift: columns, splits",
        guessed="files' names; rows whose image or answer is missing",
    ),
    Dataset(
        "HuggingFaceM4/FineVision",
        write_finevision,
        files="SET/train-*.parquet, 185 sets",
        shape="images, texts: list of user, assistant; source; ratings on four axes, as lists and as their lowest",
        kind="finevision",
        licence="",
        known="arXiv 2510.17269: the axes, the sets named here; licences are those of each set",
        guessed="numbers' width, null ratings, and the name of the text-only set. 7 of the 185 sets are made",
        subsets=FINEVISION_SUBSETS,
    ),
)
