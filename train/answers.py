"""What trained stages made of held-out samples, in files beside them: what takedowns leave of it.

Imports no torch, for `vlmill takedown` does without.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from vlmill.pipeline.core.files import read_json, write_atomically
from vlmill.train.digests import DIGESTS, RESULT, SCORING, write_result

ANSWERS = "held_out.jsonl"
"""What the trained stage made of each held-out sample, with its questions and references."""


def list_answered(root: Path) -> list[Path]:
    """The folders of a run's stages that hold such files."""
    stages = sorted(path for path in (root / "train").glob("*") if path.is_dir())
    return [path for path in stages if (path / ANSWERS).exists() or any(path.glob(f"{SCORING}*"))]


def forget_answers(folder: Path, gone: Collection[str]) -> int:
    """Leave samples out of a stage's files of answers; scores stay as they are.

    A scoring that was interrupted begins anew. The digests of a finished stage are those of what is left.

    Args:
        folder: Of the stage.
        gone: Ids of samples.

    Returns:
        How many lines went.
    """
    for path in sorted(folder.glob(f"{SCORING}*")):
        path.unlink()
    if not (folder / ANSWERS).exists():
        return 0
    text = (folder / ANSWERS).read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if line]  # texts in JSON may hold what splitlines takes for line ends
    left = [line for line in lines if json.loads(line)["id"] not in gone]
    if len(left) < len(lines):
        finished = (folder / RESULT).exists() and (folder / DIGESTS).exists()
        result = read_json(folder / RESULT) if finished else {}
        (folder / RESULT).unlink(missing_ok=True)
        write_atomically(folder / ANSWERS, "".join(f"{line}\n" for line in left))
        if finished:
            write_result(folder, result)
    return len(lines) - len(left)
