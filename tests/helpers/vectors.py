"""Vectors of made partitions, as an embedding leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vlmill.pipeline.core.names import name_embeddings
from vlmill.pipeline.core.scores import Scores, write_embeddings
from vlmill.pipeline.core.step import Inputs, Step


def make_vectors(number: int, seed: int = 0, length: int = 16, centres: int = 5, spread: float = 0.3) -> np.ndarray:
    """Vectors of length 1 around a few centres, as float16."""
    random = np.random.default_rng(seed)
    around = random.normal(size=(centres, length))
    found = around[random.integers(0, centres, number)] + spread * random.normal(size=(number, length))
    unit: np.ndarray = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)
    return unit


def write_vectors(folder: Path, name: str, vectors: np.ndarray, lost: Sequence[int] = ()) -> dict[str, Path]:
    """A partition whose samples have one node each; those `lost` have a reason in place of a vector."""
    folder.mkdir(parents=True, exist_ok=True)
    reasons = tuple("undecodable" if row in lost else None for row in range(len(vectors)))
    rows = np.arange(len(vectors), dtype=np.int32)
    write_embeddings(folder / name_embeddings(name), Scores(rows, np.zeros_like(rows), reasons, vectors), name)
    return {name_embeddings(name): folder / name_embeddings(name)}


def run_step(step: Step, inputs: Inputs, folder: Path) -> dict[str, Path]:
    """What a step leaves, by name."""
    folder.mkdir(parents=True)
    counts = step.run(inputs, folder)
    assert all(count.balanced() for count in counts.values())
    return {path.name: path for path in sorted(folder.iterdir())}
