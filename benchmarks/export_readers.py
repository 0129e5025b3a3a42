"""Exports read and trained on by the packages that they are for, sample for sample.

The first command writes what a stage's plan holds, from the run itself; the others need no vlmill, and run in an
environment of the package that they name:

    python -m benchmarks.export_readers reference RUN STAGE reference.jsonl
    vlmill export RUN --stage STAGE --to parquet --out EXPORT                 # or webdataset, messages
    ELSEWHERE/bin/python benchmarks/export_readers.py datasets EXPORT reference.jsonl
    ELSEWHERE/bin/python benchmarks/export_readers.py webdataset EXPORT reference.jsonl
    ELSEWHERE/bin/python benchmarks/export_readers.py energon EXPORT reference.jsonl
    ELSEWHERE/bin/python benchmarks/export_readers.py trl EXPORT RUN/train/STAGE/export
    ELSEWHERE/bin/python benchmarks/export_readers.py llamafactory EXPORT RUN/train/STAGE/export

They compare ids, texts, the bytes of images, and the pixels that the package decodes.
"""

# ruff: noqa: PLC0415 - each command imports the package that it is about, and needs no other
from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

Line = dict[str, Any]
"""`id`; `text`: all texts, `<image>` between; `bytes`, `pixels`: sha256 of each image as stored, and as RGB."""

STEPS = 3


def make_line(name: str, parts: Iterable[str | None], images: Iterable[bytes]) -> Line:
    """What is compared of a record."""
    text = "".join("<image>" if part is None else part for part in parts)
    stored = list(images)
    return {
        "id": name,
        "text": text,
        "bytes": [hashlib.sha256(data).hexdigest() for data in stored],
        "pixels": [hash_pixels(data) for data in stored],
    }


def hash_pixels(data: bytes) -> str:
    """The sha256 of an image's pixels as RGB, upright."""
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(data)) as image:
        return _hash_image(ImageOps.exif_transpose(image))


def write_reference(root: str, stage: str, target: str) -> None:
    """What the plan holds, from the run's own reader and its tables of images."""
    from vlmill import open_run
    from vlmill.mixtures.lineage import LineageTables
    from vlmill.mixtures.reader import PlannedMixture

    run, mixture = open_run(root), PlannedMixture(Path(root), stage)
    originals = {}
    for data in run.images().select("bytes").collect()["bytes"].drop_nulls():
        originals[hashlib.sha256(data).hexdigest()] = data
    lineages, planned = LineageTables(mixture), run.stage(stage).samples()
    segments = (segment for number in range(mixture.sequences) for segment in mixture.sequence(number))
    with Path(target).open("w", encoding="utf-8") as file:
        for segment, sample in zip(segments, planned, strict=True):
            nodes = lineages.find(segment)["nodes"][segment.first : segment.last]
            shown = [originals[node["sha256"]] for node in nodes if node["sha256"] is not None]
            document = all(node.role == "none" for node in sample.nodes)
            last = len(sample.nodes) - 1
            parts = [
                node.text + ("\n\n" if document and place != last else "") if node.text is not None else None
                for place, node in enumerate(sample.nodes)
            ]
            line = make_line(sample.id, parts, shown) | {"cut": sample.begin > 0 or sample.end != -1}
            file.write(json.dumps(line) + "\n")


def compare_lines(package: str, found: Iterable[Line], reference: str) -> None:
    """Say how many records agree; ends with an error at the first that does not. Texts of cut ones are not compared."""
    expected = [json.loads(line) for line in Path(reference).read_text(encoding="utf-8").splitlines()]
    count = cut = 0
    for count, (line, wanted) in enumerate(zip(found, expected, strict=True), start=1):
        compared = ["id", "bytes", "pixels"] if wanted["cut"] else ["id", "text", "bytes", "pixels"]
        cut += wanted["cut"]
        for name in compared:
            if name in line and line[name] != wanted[name]:
                sys.exit(f"record {count}: {name} is {line[name]!r}, expected {wanted[name]!r}")
    version = importlib.metadata.version(package)
    print(f"{package} {version}: {count} records are those of the run, in order; {cut} of them cut inside a text")


def read_datasets(folder: str) -> Iterator[Line]:
    """The training split of a Parquet export or of tars, by the card alone."""
    import datasets

    loaded = datasets.load_dataset(folder, split="train")
    if "json" in loaded.features:
        yield from map(_read_tar_row, loaded)
        return
    stored = loaded.cast_column("images", [datasets.Image(decode=False)])
    for row, decoded in zip(stored, loaded, strict=True):
        parts = [part["text"] for message in row["messages"] for part in message["content"]]
        line = make_line(row["id"], parts, [image["bytes"] for image in row["images"]])
        yield line | {"pixels": [_hash_image(image) for image in decoded["images"]]}


def _read_tar_row(row: dict[str, Any]) -> Line:
    content = [part for message in row["json"]["messages"] for part in message["content"]]
    line = make_line(row["json"]["id"], [part["text"] for part in content], [])
    pixels = [_hash_image(row[part["image"]]) for part in content if part["image"]]
    del line["bytes"]
    return line | {"pixels": pixels}


def _hash_image(image: Any) -> str:
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def read_webdataset(folder: str) -> Iterator[Line]:
    """The tars of the training split, without decoding."""
    import webdataset

    tars = sorted(map(str, Path(folder, "data/train").glob("*.tar")))
    for sample in webdataset.WebDataset(tars, shardshuffle=False):
        yield _read_members(sample)


def _read_members(sample: Any) -> Line:
    told = sample["json"] if isinstance(sample["json"], dict) else json.loads(sample["json"])
    content = [part for message in told["messages"] for part in message["content"]]
    parts = [part["text"] for part in content]
    return make_line(told["id"], parts, [sample[part["image"]] for part in content if part["image"]])


def read_energon(folder: str) -> Iterator[Line]:
    """The metadataset, in order: one worker, no shuffling. The cooker is what a user writes."""
    from megatron.energon import (
        Cooker,
        CrudeSample,
        DefaultTaskEncoder,
        TextSample,
        WorkerConfig,
        basic_sample_keys,
        get_loader,
        get_val_dataset,
        stateless,
    )

    @stateless  # type: ignore[untyped-decorator]
    def cook(sample: CrudeSample) -> TextSample:
        return TextSample(**basic_sample_keys(sample), text=json.dumps(_read_members(sample)))

    class Encoder(DefaultTaskEncoder):  # type: ignore[misc, type-arg]
        decoder = None
        cookers = (Cooker(cook),)

    config = WorkerConfig(rank=0, world_size=1, num_workers=0)
    every = get_val_dataset(
        Path(folder, "metadataset.yaml"), split_part="train", batch_size=1, worker_config=config, task_encoder=Encoder()
    )
    for batch in get_loader(every):
        yield from map(json.loads, batch.text)


def train_trl(folder: str, model: str) -> None:
    """Three steps of SFTTrainer on a Parquet export."""
    import datasets
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from trl import SFTConfig, SFTTrainer

    loaded = datasets.load_dataset(folder, split="train").select(range(2 * STEPS))
    processor = AutoProcessor.from_pretrained(model)
    trainer = SFTTrainer(
        model=AutoModelForImageTextToText.from_pretrained(model),
        args=SFTConfig(
            output_dir=f"{folder}-trl",
            max_steps=STEPS,
            per_device_train_batch_size=2,
            max_length=None,
            report_to=[],
            save_strategy="no",
            logging_steps=1,
            use_cpu=True,
            bf16=False,
        ),
        train_dataset=loaded,
        processing_class=processor,
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(f"trl {importlib.metadata.version('trl')}: {len(losses)} steps, losses {losses}")


def train_llamafactory(folder: str, model: str) -> None:
    """Three steps of full fine-tuning on a messages export, by the names in its `dataset_info.json`."""
    from llamafactory.train.tuner import run_exp

    told = json.loads(Path(folder, "dataset_info.json").read_text(encoding="utf-8"))
    kind = json.loads(Path(model, "config.json").read_text(encoding="utf-8"))["model_type"]
    output = f"{folder}-llamafactory"
    run_exp(
        {
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "full",
            "model_name_or_path": model,
            "template": kind if kind == "llava_next" else "llava",
            "dataset_dir": folder,
            "media_dir": folder,
            "dataset": next(iter(told)),
            "max_samples": 20,
            "cutoff_len": 2048,
            "disable_shuffling": True,
            "output_dir": output,
            "overwrite_output_dir": True,
            "per_device_train_batch_size": 2,
            "max_steps": STEPS,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
        }
    )
    state = json.loads(Path(output, "trainer_state.json").read_text(encoding="utf-8"))
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    print(f"llamafactory {importlib.metadata.version('llamafactory')}: {len(losses)} steps, losses {losses}")


COMPARED: dict[str, Callable[[str], Iterator[Line]]] = {
    "datasets": read_datasets,
    "webdataset": read_webdataset,
    "megatron-energon": read_energon,
}


def main() -> None:
    """Run one of the commands above."""
    command, *arguments = sys.argv[1:]
    name = "megatron-energon" if command == "energon" else command
    if command == "reference":
        write_reference(*arguments)
    elif name in COMPARED:
        folder, reference = arguments
        compare_lines(name, COMPARED[name](folder), reference)
    else:
        {"trl": train_trl, "llamafactory": train_llamafactory}[command](*arguments)


if __name__ == "__main__":
    main()
