"""datatrove's MinHash on a file of texts.

benchmarks/dedupe.py runs it with a separate Python, as it needs other versions than vlmill.

    PYTHON benchmarks/datatrove_minhash.py TEXTS OUT

TEXTS holds one JSON string per line, its words and lone characters apart by spaces. OUT becomes `{"seconds", "removed":
[row]}`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.utils.logging import logger
from datatrove.utils.word_tokenizers import WordTokenizer


class Spaces(WordTokenizer):
    """Words are what stands between spaces."""

    def word_tokenize(self, text: str) -> list[str]:
        """The words."""
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        """One sentence."""
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Of one sentence."""
        return [(0, len(text))]


def main(texts: Path, out: Path) -> None:
    """Its four stages with its own 14 buckets of 8 hashes, in this process."""
    logger.remove()
    words = [json.loads(line) for line in texts.read_text(encoding="utf-8").splitlines()]
    documents = [Document(text=text, id=str(row)) for row, text in enumerate(words)]
    config = MinhashConfig(n_grams=5)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        signatures, pairs, redactions = (f"{folder}/{name}" for name in ("signatures", "pairs", "removals"))
        MinhashDedupSignature(signatures, config, language=Spaces()).run(iter(documents))
        for bucket in range(config.num_buckets):
            MinhashDedupBuckets(signatures, pairs, config=config).run(rank=bucket, world_size=config.num_buckets)
        MinhashDedupCluster(pairs, redactions, config=config).run()
        kept = {int(document.id) for document in MinhashDedupFilter(redactions).run(iter(documents))}
    seconds = time.perf_counter() - start
    removed = sorted(set(range(len(documents))) - kept)
    out.write_text(json.dumps({"seconds": seconds, "removed": removed}), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
