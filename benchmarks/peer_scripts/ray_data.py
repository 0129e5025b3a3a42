"""The job `curate` of benchmarks/peers.py with Ray Data, as its documentation writes such a job."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fasttext
import pandas as pd
import ray
from PIL import Image

OUT, DOCUMENTS, SETTINGS = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])


class KeepEnglish:
    """fastText's first guess."""

    def __init__(self) -> None:
        """Load the model once for each actor."""
        self.model = fasttext.load_model(SETTINGS["lid"])

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        """Rows whose text is most likely English."""
        joined = batch["texts"].map(lambda texts: " ".join(text for text in texts if text).replace("\n", " "))
        labels = [self.model.f.predict(text, 1, 0.0, "strict") for text in joined]
        kept = batch[[bool(label) and label[0][1] == "__label__en" for label in labels]].copy()
        kept["sha256"] = [hashlib.sha256(text.encode()).hexdigest() for text in joined[kept.index]]
        return kept


def download(url: str | None) -> Image.Image | None:
    """A picture, or None."""
    for start, real in SETTINGS["mirror"].items():
        url = real + url.removeprefix(start) if url and url.startswith(start) else url
    if not url:
        return None
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            image = Image.open(io.BytesIO(answer.read()))
            image.load()
            return image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def encode_image(image: Image.Image) -> bytes:
    """A square with borders as JPEG."""
    side = SETTINGS["side"]
    image = image.convert("RGB")
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    square, file = Image.new("RGB", (side, side), (127, 127, 127)), io.BytesIO()
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    square.save(file, "JPEG", quality=95)
    return file.getvalue()


def fetch_images(batch: pd.DataFrame) -> pd.DataFrame:
    """Samples of WebDataset: one for the texts of a document, one for each of its images."""
    samples = []
    with ThreadPoolExecutor(64) as pool:
        for row in batch.to_dict("records"):
            images = [encode_image(image) for image in pool.map(download, row["images"]) if image is not None]
            texts = json.dumps([text for text in row["texts"] if text])
            key = row["sha256"][:16]
            samples.append({"__key__": f"{key}-text", "json": texts.encode(), "jpg": None})
            samples += [{"__key__": f"{key}-{at}", "json": None, "jpg": image} for at, image in enumerate(images)]
    return pd.DataFrame(samples, columns=["__key__", "json", "jpg"])


def leave_out_empty(sample: dict[str, Any]) -> dict[str, Any]:
    """What a sample has."""
    return {name: value for name, value in sample.items() if value is not None}


def main() -> None:
    """Run the job and leave what it kept."""
    ray.init(num_cpus=SETTINGS["cores"], include_dashboard=False, log_to_driver=False)
    read = ray.data.read_parquet(DOCUMENTS, override_num_blocks=4 * SETTINGS["cores"])
    english = read.map_batches(KeepEnglish, batch_format="pandas", concurrency=1)
    once = english.groupby("sha256").map_groups(lambda group: group.head(1), batch_format="pandas")
    samples = once.map_batches(fetch_images, batch_format="pandas", batch_size=32).materialize()
    documents = samples.filter(lambda row: row["json"] is not None).count()
    samples.write_webdataset(str(OUT / "shards"), encoder=[leave_out_empty])
    (OUT / "kept.txt").write_text(f"{documents:,} / {samples.count() - documents:,}")


if __name__ == "__main__":
    main()
