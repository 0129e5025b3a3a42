"""Train the quickstart's tokenizer on the quickstart's own texts.

    python -m tools.quickstart.train_tokenizer [FOLDER]

Reads the data below the folder and writes `tokenizer.json` there (recipes/quickstart unless another folder is named):
byte-level BPE, so any text can be encoded, with a vocabulary small enough for a model of a few hundred thousand
weights. The file is shipped; a build does not train it. Run this again after `generate.py`, for the texts decide the
merges.
"""

from __future__ import annotations

import json
import re
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tools.quickstart.generate import DATA

if TYPE_CHECKING:
    from collections.abc import Iterator

SPECIAL = ("<|start|>", "<|stop|>", "<|pad|>", "<image>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
"""Their ids are their places here, from 0."""

VOCABULARY = 2048

HAN, KANA = re.compile("[\u4e00-\u9fff]"), re.compile("[\u3040-\u30ff]")


def main(folder: Path) -> None:
    """Train on the texts below `folder` and write its `tokenizer.json`."""
    train(sorted(kept(texts(folder)))).save(str(folder / "tokenizer.json"), pretty=False)


def train(lines: list[str]) -> Tokenizer:
    """A byte-level BPE tokenizer; the same lines in the same order give the same merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def texts(folder: Path) -> Iterator[str]:
    """Every text of the quickstart data."""
    for path in sorted((folder / "web").glob("*.parquet")):
        for document in pq.read_table(path, columns=["texts"])["texts"].to_pylist():
            yield from (text for text in document or [] if text)
    for path in sorted((folder / "quiz").glob("*.parquet")):
        for turns in pq.read_table(path, columns=["texts"])["texts"].to_pylist():
            yield from (turn[role] for turn in turns for role in ("user", "assistant") if turn[role])
    for path in sorted([*(folder / "scans").glob("*.tar"), *(folder / "papers").glob("*.tar")]):
        yield from _lines(path)


def _lines(path: Path) -> Iterator[str]:
    with tarfile.open(path) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name.endswith(".json") else None
            try:
                pages = json.load(file)["pages"] if file else []
            except json.JSONDecodeError:
                continue  # planted: this row is lost in a build, too
            for page in pages:
                yield "\n".join(page.get("lines", page)["text"])


def kept(lines: Iterator[str]) -> Iterator[str]:
    """Without Chinese, which the recipe drops, so that no merges are spent on it."""
    return (line for line in lines if not HAN.search(line) or KANA.search(line))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA)
