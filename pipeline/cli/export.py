"""The command that writes data for other trainers: export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlmill.pipeline.cli.arguments import Folder, JsonFlag, console, print_json


def export(
    directory: Folder,
    to: Annotated[str, typer.Option(metavar="FORMAT", help="parquet, llava, messages or webdataset.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", file_okay=False, help="A new folder, or one of an export.")],
    stage: Annotated[
        str | None, typer.Option(help="The mixture of this stage. Default: all samples that were kept, by source.")
    ] = None,
    order: Annotated[
        str,
        typer.Option(
            help="Of a stage: plan writes its samples in the order of training, repeated and cut as planned; samples "
            "writes each once, with its weight."
        ),
    ] = "plan",
    images: Annotated[
        str, typer.Option(help="original: as they came; policy: as the stage's image policy drew them.")
    ] = "original",
    shard_samples: Annotated[int, typer.Option(min=1, help="Records of a file, at most.")] = 10_000,
    shard_bytes: Annotated[int, typer.Option(min=1, help="Bytes of a file before compression, about.")] = 512 << 20,
    as_json: JsonFlag = False,
) -> None:
    """Write the mixture of a stage, or what was kept, for other trainers.

    parquet is for Hugging Face datasets and TRL, llava for LLaVA's code, messages for LLaMA-Factory and ms-swift,
    webdataset for webdataset and Megatron-Energon. What a format cannot say is counted. Run the same command again
    after an interruption, or after a takedown: it goes on, writes anew, or says that there is nothing to do.

        vlmill export demo --stage tune --to parquet --out demo-tune
        vlmill export demo --stage tune --order samples --to webdataset --out demo-energon
        vlmill export demo --to messages --out demo-kept
    """
    from dataclasses import asdict

    from vlmill.api.runs import open_run
    from vlmill.mixtures.export.record import REMARKS

    tell = None if as_json else lambda line: console.print(line, markup=False)
    done = open_run(directory).export(
        to,
        out,
        stage=stage,
        order=order,
        images=images,
        shard_samples=shard_samples,
        shard_bytes=shard_bytes,
        tell=tell,
    )
    if as_json:
        print_json(asdict(done) | {"folder": str(done.folder)})
        return
    if done.outcome == "unchanged":
        console.print(f"nothing to do: {out} holds this export, {done.files:,} files as they were written")
        return
    if done.outcome == "replaced":
        console.print(f"the export that was there is replaced: {done.why}", markup=False)
    for name, number in done.remarks.items():
        console.print(f"{name}, {number:,}: {REMARKS[name]}", markup=False)
    console.print(
        f"wrote {done.records:,} records with {done.images:,} images, {done.files:,} files; see {out}/README.md"
    )
