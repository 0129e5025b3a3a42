"""The job `near` of benchmarks/peers.py with Data-Juicer's operators; runs where py-data-juicer is installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml
from data_juicer.config import init_configs
from data_juicer.core import DefaultExecutor

OUT, DOCUMENTS, SETTINGS = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])


def main() -> None:
    """Run the operators in batches of one, since an image that cannot be opened costs the whole batch."""
    smallest = SETTINGS["smallest"]
    operators = [
        {"language_id_score_filter": {"lang": "en", "min_score": 0.5, "batch_size": 1}},
        {"image_shape_filter": {"min_width": smallest, "min_height": smallest, "any_or_all": "any", "batch_size": 1}},
        {"document_minhash_deduplicator": {"tokenization": "space", "jaccard_threshold": 0.8}},
        {"image_deduplicator": {"method": "phash"}},
    ]
    config = {
        "project_name": "near", "dataset_path": DOCUMENTS, "export_path": str(OUT / "out.jsonl"),
        "np": SETTINGS["cores"], "text_keys": "text", "image_key": "images", "open_tracer": False,
        "process": operators,
    }  # fmt: skip
    (OUT / "config.yaml").write_text(yaml.safe_dump(config))
    DefaultExecutor(init_configs(["--config", str(OUT / "config.yaml")])).run()
    rows = [json.loads(line) for line in (OUT / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    (OUT / "kept.txt").write_text(f"{len(rows):,} / {sum(len(row['images']) for row in rows):,}")


if __name__ == "__main__":
    main()
