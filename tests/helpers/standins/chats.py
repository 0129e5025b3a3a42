"""Stand-ins for text alone: OpenHermes and the other eight sets of Idefics2's fine-tuning, and SmolTalk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from tests.helpers.standins.dataset import SUBSETS, Dataset, Write
from tests.helpers.standins.material import Material
from tests.helpers.standins.tree import STRING, Row, Tree, number_shard
from tests.helpers.upstream import talk

MESSAGES = pa.list_(pa.struct({"content": STRING, "role": STRING}))
IDEFICS2 = "Idefics2's script for its fine-tuning sets (smollm, vision/data)"

OPENHERMES_NULLS = [
    "custom_instruction",
    "topic",
    "model_name",
    "model",
    "skip_prompt_formatting",
    "views",
    "language",
    "id",
    "title",
    "idx",
    "hash",
    "avatarUrl",
]


def write_openhermes(tree: Tree, rows: Mapping[str, int]) -> None:
    """An array with many keys that are null; some rows have a system prompt, beside the turns or among them."""
    tree.write_card("", pretty_name="OpenHermes 2.5", tags=["synthetic", "GPT-4"])
    material = tree.material("default")
    good = [_openhermes_row(material, number) for number in range(rows["default"])]
    cut = {**good[0], "conversations": good[0]["conversations"][:1]}
    silent = {**good[0], "conversations": talk(material.question(91), "")}
    tree.write_json("openhermes2_5.json", tree.mix(good, [(cut, "bad_row"), (silent, "bad_row")]))


def _openhermes_row(material: Material, number: int) -> dict[str, Any]:
    turns: list[dict[str, Any]] = talk(material.question(number), material.sentences(number, 3))
    system = "You answer in short sentences."
    if number % 4 == 2:
        turns.insert(0, {"from": "system", "value": system})
    return {
        **dict.fromkeys(OPENHERMES_NULLS),
        "category": "general" if number % 2 else None,
        "conversations": turns,
        "system_prompt": system if number % 4 == 1 else None,
        "source": "airoboros2.2",
    }


def write_lima(tree: Tree, rows: Mapping[str, int]) -> None:
    """Conversations as lists of strings, by turns of the two; the test file's have no answer."""
    tree.write_card("other", extra_gated_prompt="Agree to the terms")
    material = tree.material("default")

    def make(number: int) -> dict[str, Any]:
        more = [material.question(number), material.sentences(number)] if number % 4 == 3 else []
        said = [material.question(number), material.sentences(number, 4), *more]
        return {"conversations": said, "source": "multi_turn" if more else "stackexchange"}

    cut = {"conversations": [material.question(90)], "source": "multi_turn"}
    mixed = tree.mix(map(make, range(rows["default"])), [(cut, "bad_row")])
    tree.write_json_lines("train.jsonl", mixed)
    tree.write("test.jsonl", (json.dumps({**cut, "source": "test"}) + "\n").encode())


Make = Callable[[Material, int], dict[str, Any]]


def _make_instruction(material: Material, number: int) -> dict[str, Any]:
    return {"instruction": material.question(number), "output": material.sentences(number)}


def _make_dolly(material: Material, number: int) -> dict[str, Any]:
    return {
        "instruction": material.question(number),
        "context": material.sentences(number, 3) if number % 3 == 1 else "",
        "response": material.sentences(number),
        "category": "open_qa",
    }


def _make_metamath(material: Material, number: int) -> dict[str, Any]:
    asked = material.question(number)
    return {"type": "GSM_Rephrased", "query": asked, "original_question": asked, "response": material.sentences(number)}


def _make_math_instruct(material: Material, number: int) -> dict[str, Any]:
    return {"source": "data/CoT/aqua_rat.json", **_make_instruction(material, number)}


def _make_orca_math(material: Material, number: int) -> dict[str, Any]:
    return {"question": material.question(number), "answer": material.sentences(number)}


def _make_sum(material: Material, number: int) -> dict[str, Any]:
    first, second = 10 + number, len(material.name) + 7 * number
    return {
        "instruction": f"{first} + {second} = ?" if number % 2 else f"What is {first} + {second}?",
        "input": f"{first} + {second}",
        "output": f"{first} + {second} = {first + second}",
        "answer": str(first + second),
    }


def _instructions_writer(write: Callable[[Tree, list[Row]], None], make: Make, answer: str, licence: str) -> Write:
    """Writes rows of one question and one answer; one row's answer is empty."""

    def write_rows(tree: Tree, rows: Mapping[str, int]) -> None:
        tree.write_card(licence)
        material = tree.material("default")
        good = [make(material, number) for number in range(rows["default"])]
        write(tree, tree.mix(good, [({**make(material, 90), answer: ""}, "empty_row")]))

    return write_rows


def _write_array(name: str) -> Callable[[Tree, list[Row]], None]:
    return lambda tree, rows: tree.write_json(name, rows)


def _write_lines(name: str) -> Callable[[Tree, list[Row]], None]:
    return lambda tree, rows: tree.write_json_lines(name, rows)


def _write_orca(tree: Tree, rows: list[Row]) -> None:
    tree.write_parquet(f"data/{number_shard(0, 1)}", {"question": STRING, "answer": STRING}, rows)


def write_camel_math(tree: Tree, rows: Mapping[str, int]) -> None:
    """An archive with a JSON file per row, and the table that the Hub makes of it."""
    tree.write_card("cc-by-nc-4.0")
    material = tree.material("default")
    good = [
        {
            "role_1": "Mathematician",
            "topic;": "Algebra",
            "sub_topic": "Sums",
            "message_1": material.question(number),
            "message_2": material.sentences(number, 3),
        }
        for number in range(rows["default"])
    ]
    members = {f"math/{number // 100:03d}_{number % 100:03d}.json": row for number, row in enumerate(good)}
    tree.write_zip("math.zip", {name: json.dumps(row).encode() for name, row in members.items()})
    tree.write_json_lines("math.jsonl", [(row, "") for row in good])


SMOLTALK_SUBSETS = SUBSETS["HuggingFaceTB/smoltalk"]


def write_smoltalk(tree: Tree, rows: Mapping[str, int]) -> None:
    """Messages in Parquet, a folder per set; tool calls in one of them are text."""
    configs = {name: {split: f"data/{name}/{split}-*" for split in ("train", "test")} for name in SMOLTALK_SUBSETS}
    tree.write_card("apache-2.0", configs)
    for subset, count in rows.items():
        material = tree.material(subset)
        columns = {"messages": MESSAGES, **({"source": STRING} if subset == "all" else {})}
        good = [_smoltalk_row(material, number, subset) for number in range(count)]
        cut = {**good[0], "messages": good[0]["messages"][:-1]}
        for split, rows_of_split in (("train", tree.mix(good, [(cut, "bad_row")])), ("test", [(good[0], "")])):
            name = f"data/{subset}/{number_shard(0, 1, split)}"
            tree.write_parquet(name, columns, rows_of_split)


def _smoltalk_row(material: Material, number: int, subset: str) -> dict[str, Any]:
    turns = talk(material.question(number), material.sentences(number, 3), keys=("role", "content"))
    if number % 3 == 2 or subset == "systemchats-30k":
        turns.insert(0, {"role": "system", "content": "You answer in short sentences."})
    row = {"messages": turns}
    return {**row, "source": "smol-rewrite"} if subset == "all" else row


def _describe(
    repository: str, write: Write, files: str, shape: str, licence: str, guessed: str, **more: Any
) -> Dataset:
    """The entry of a set of Idefics2's fine-tuning."""
    known = f"{IDEFICS2}: repository and keys that are read"
    said = {"kind": "instructions", "known": known, **more}
    return Dataset(repository, write, files, shape, licence=licence, guessed=guessed, **said)


OUTPUT = {"question": "instruction", "answer": "output"}

DATASETS = (
    _describe(
        "teknium/OpenHermes-2.5",
        write_openhermes,
        "openhermes2_5.json",
        "array of conversations of from and value, system_prompt, source, category, and a dozen keys that are null",
        "",
        "the keys that are null, rows with a cut conversation or an empty answer",
        known="tree pages of the repository: files; readers of others: conversations, system prompts",
        kind="chat",
    ),
    _describe(
        "GAIR/lima",
        write_lima,
        "train.jsonl, test.jsonl",
        "conversations: list of strings by turns, source",
        "other",
        "the form of a row (from memory), the licence, a question without an answer in train.jsonl",
        kind="chat",
        gated=True,
    ),
    _describe(
        "databricks/databricks-dolly-15k",
        _instructions_writer(_write_lines("databricks-dolly-15k.jsonl"), _make_dolly, "response", "cc-by-sa-3.0"),
        "databricks-dolly-15k.jsonl",
        "instruction, context (often empty), response, category",
        "cc-by-sa-3.0",
        "the file's name, the licence, an empty answer",
        options={"question": "instruction", "answer": "response", "context": "context"},
    ),
    _describe(
        "meta-math/MetaMathQA",
        _instructions_writer(_write_array("MetaMathQA-395K.json"), _make_metamath, "response", "mit"),
        "MetaMathQA-395K.json",
        "array of type, query, original_question, response",
        "mit",
        "the file's name, the licence, an empty answer",
        options={"question": "query", "answer": "response"},
    ),
    _describe(
        "TIGER-Lab/MathInstruct",
        _instructions_writer(_write_array("MathInstruct.json"), _make_math_instruct, "output", "mit"),
        "MathInstruct.json",
        "array of source, instruction, output",
        "mit",
        "the file's name, the licence, an empty answer",
        options=OUTPUT,
    ),
    _describe(
        "microsoft/orca-math-word-problems-200k",
        _instructions_writer(_write_orca, _make_orca_math, "answer", "mit"),
        "data/train-*.parquet",
        "question, answer",
        "mit",
        "the files' names, the licence, an empty answer",
        options={"question": "question", "answer": "answer"},
    ),
    _describe(
        "camel-ai/math",
        write_camel_math,
        "math.zip, a JSON file per row",
        "role_1, topic;, sub_topic, message_1, message_2",
        "cc-by-nc-4.0",
        "the archive and its folders, the licence",
        options={"question": "message_1", "answer": "message_2"},
        remark="The archive is not read: join its files to JSON Lines, as the stand-in's math.jsonl is.",
    ),
    _describe(
        "AtlasUnified/atlas-math-sets",
        _instructions_writer(_write_lines("train.jsonl"), _make_sum, "output", ""),
        "train.jsonl, validation.jsonl, test.jsonl",
        "instruction, input, output, answer",
        "",
        "the files' names, input and answer, an empty answer",
        options=OUTPUT,
    ),
    _describe(
        "tiedong/goat",
        _instructions_writer(_write_array("dataset.json"), _make_sum, "output", ""),
        "dataset.json",
        "array of instruction, input, output, answer",
        "",
        "the file's name, input and answer, an empty answer",
        options=OUTPUT,
    ),
    Dataset(
        "HuggingFaceTB/smoltalk",
        write_smoltalk,
        files="data/SET/{train,test}-*.parquet",
        shape="messages of role and content; source in the set all",
        kind="chat",
        licence="apache-2.0",
        known="tables made from it by others: messages of role and content",
        guessed="the folders, the names of sets and the licence (from memory), a conversation that is cut",
        subsets=SMOLTALK_SUBSETS,
    ),
)
