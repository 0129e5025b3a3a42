"""Which edited copies of pictures dedupe and decontamination find, what they take for copies, and at what cost.

    python -m benchmarks.pictures --corpus DIR [--half 0|1] [--number 100] [--parts PARTS] [--sheets DIR]

DIR holds `obelics/img_blobs/**` (image files), `cauldron/*/*.parquet` (the columns of The Cauldron) and
`documents/idl_sroie/*.tar`. Pictures are drawn by a hash of their bytes that the pipeline does not use. The same hash
says which half a picture belongs to: thresholds were chosen on half 0. No two drawn pictures correlate above ALIKE.

PARTS are some of `recall,templates,crowd,cost`:

- recall: each drawn picture is edited in the ways of `picture_edits.py`. Dedupe compares all pictures and copies with
  each other; a copy is found if it and its original are a pair at the default threshold. For decontamination the
  pictures are a benchmark, and the copies are training data. Any pair of files of two pictures is wrong; sheets of them
  go to `--sheets`.
- templates: pictures of one layout that say something else; every pair of them that is found is wrong.
- crowd: pictures of The Cauldron's sets that are made from templates, some of them edited as well, which meet hundreds
  of others: which copies are found, and how many pairs are measured, with the default cap and without one.
- cost: CPU seconds of dedupe's steps over pictures of The Cauldron, and bytes of evidence for each.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.dedupe_steps import DEFAULTS, found_pairs, run_steps
from benchmarks.picture_edits import DEMANDED, EDITS, TEMPLATES, draw_template, encode_picture
from vlmill.pipeline.core.sample import (
    IMAGES,
    ImageStats,
    Node,
    Sample,
    SampleId,
    read_rows,
    write_image_stats,
    write_rows,
    write_samples,
)
from vlmill.pipeline.decontaminate import Decontamination
from vlmill.pipeline.decontaminate.contamination import read_findings
from vlmill.pipeline.decontaminate.index import FOLDER
from vlmill.pipeline.dedupe.signature import make_image_key
from vlmill.pipeline.images.decode import Undecodable, decode_image
from vlmill.pipeline.steps.image_stats import compute_image_stats

SHARES = {"web": 0.6, "mathvision": 0.1, "tuxpaint_stamps": 0.1, "sroie": 0.05, "idl_sroie": 0.1, "nlvr": 0.05}
"""Of the drawn pictures, by set."""
LEAST_SIDE = 64
"""Pixels of the shorter side: the edits write text."""
ALIKE = 0.97
"""Correlation of luminance at 64 x 64 pixels above which only one of two pictures is drawn."""
FLAT = 5.0
"""Standard deviation of luminance under which a file is no picture."""
PER_TEMPLATE = 14
"""Pictures drawn of each template."""
PER_SET = 110
"""Pictures of each set of The Cauldron over which cost is measured."""
CROWDS = ("easy_vqa", "nlvr")
"""Sets of The Cauldron that are made from templates."""
EDITED = 40
"""Pictures of such a set that are edited."""
CROWD_EDITS = ("JPEG, quality 50", "half size", "caption bar below", "brightness x 1.2")
"""How."""
UNCAPPED = 1_000_000
"""A cap that leaves out nothing."""

Pair = tuple[int, int]


def main() -> None:
    """Print the figures."""
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.pictures")
    arguments.add_argument("--corpus", type=Path, required=True)
    arguments.add_argument("--half", type=int, choices=(0, 1), default=1)
    arguments.add_argument("--number", type=int, default=100)
    arguments.add_argument("--parts", default="recall,templates,crowd,cost")
    arguments.add_argument("--crowd", type=int, default=1000, help="pictures of each set of templates")
    arguments.add_argument("--sheets", type=Path)
    given = arguments.parse_args()
    parts = given.parts.split(",")
    if "recall" in parts:
        measure_recall(draw_pictures(given.corpus, given.half, given.number), given.sheets)
    if "templates" in parts:
        measure_templates(given.sheets)
    if "crowd" in parts:
        for name in CROWDS:
            measure_crowd(given.corpus, name, given.crowd)
    if "cost" in parts:
        measure_cost(given.corpus, given.sheets)


def hash_picture(data: bytes) -> bytes:
    """By what pictures are drawn and halved; the pipeline's keys are the plain sha256."""
    return hashlib.blake2b(data, digest_size=8, person=b"pictures").digest()


def draw_pictures(corpus: Path, half: int, number: int) -> list[Image.Image]:
    """About `number` pictures of one half, by the shares of the sets."""
    taken, views = list[Image.Image](), np.empty((0, 64 * 64))
    for name, share in SHARES.items():
        least = len(taken) + round(share * number)
        files = {hash_picture(data): data for data in read_set(corpus, name)}
        for order in sorted(files):
            if order[0] & 1 == half and len(taken) < least:
                seen = view_picture(files[order])
                if seen is not None and (views @ seen[1]).max(initial=0) <= ALIKE:
                    taken.append(seen[0])
                    views = np.concatenate([views, seen[1][None]])
    return taken


def read_set(corpus: Path, name: str) -> Iterator[bytes]:
    """The files of a set."""
    if name == "web":
        yield from (path.read_bytes() for path in sorted((corpus / "obelics/img_blobs").glob("*/*")))
    elif name == "idl_sroie":
        for path in sorted((corpus / "documents/idl_sroie").glob("*.tar")):
            with tarfile.open(path) as archive:
                for member in archive:
                    if member.name.endswith(".tif") and (file := archive.extractfile(member)) is not None:
                        yield file.read()
    else:
        for path in sorted((corpus / "cauldron" / name).glob("*.parquet")):
            yield from (shown["bytes"] for row in read_rows(path, ["images"]) for shown in row["images"])


def view_picture(data: bytes) -> tuple[Image.Image, np.ndarray] | None:
    """A picture, and its luminance at 64 pixels a side with mean 0 and norm 1; None of what is not drawn."""
    try:
        picture = decode_image(data)
    except Undecodable:
        return None
    view = np.asarray(picture.convert("L").resize((64, 64), Image.Resampling.LANCZOS), np.float64).ravel()
    if view.std() < FLAT or min(picture.size) < LEAST_SIDE:
        return None
    view -= view.mean()
    return picture, view / np.linalg.norm(view)


def measure_recall(originals: Sequence[Image.Image], sheets: Path | None) -> None:
    """Recall by edit and precision, of dedupe and of decontamination."""
    files, names, owners = list[bytes](), list[str](), list[int]()
    for number, picture in enumerate(originals):
        for name, copy in [("", picture), *((name, edit(picture, number)) for name, edit in EDITS.items())]:
            files.append(encode_picture(copy, "JPEG", quality=50) if name.startswith("JPEG") else encode_picture(copy))
            names.append(name)
            owners.append(number)
    stats = [compute_image_stats(row, data) for row, data in enumerate(files)]
    keys = {make_image_key(each): row for row, each in reversed(list(enumerate(stats)))}
    rows = [keys[make_image_key(each)] for each in stats]
    print(f"{len(originals)} pictures, {len(keys)} files")
    for what, found in (("dedupe", find_by_dedupe(stats, keys)), ("decontamination", find_leaks(files, stats, names))):
        pairs = found | {(row, row) for row in rows}
        report(what, pairs, names, owners, rows)
        wrong = [pair for pair in sorted(found) if owners[pair[0]] != owners[pair[1]]]
        if sheets and wrong:
            draw_sheet(sheets / f"{what}.png", [(files[one], files[other]) for one, other in wrong])


def report(what: str, pairs: set[Pair], names: Sequence[str], owners: Sequence[int], rows: Sequence[int]) -> None:
    """Print recall by edit and what is wrong."""
    first = {owner: rows[row] for row, owner in reversed(list(enumerate(owners)))}
    print(f"  {what}")
    for edit in EDITS:
        copies = [rows[row] for row, name in enumerate(names) if name == edit]
        found = [tuple(sorted((first[owner], row))) in pairs for owner, row in zip(sorted(first), copies, strict=True)]
        print(f"    {edit:24} {np.mean(found):.3f}{' *' if edit in DEMANDED and np.mean(found) < 0.95 else ''}")
    different = [pair for pair in pairs if pair[0] != pair[1]]
    wrong = Counter(tuple(sorted((owners[one], owners[other]))) for one, other in different)
    wrong = Counter({pair: count for pair, count in wrong.items() if pair[0] != pair[1]})
    print(f"    precision {1 - wrong.total() / max(1, len(different)):.4f} of {len(different)} pairs of files; "
          f"{len(wrong)} pairs of pictures taken for one")  # fmt: skip


def find_by_dedupe(stats: Sequence[ImageStats], keys: Mapping[int, int]) -> set[Pair]:
    """Pairs of rows that dedupe calls near duplicates at its default threshold."""
    folder, _ = run_steps(make_samples(len(stats)), stats)
    found = found_pairs(folder, "image", DEFAULTS.image)
    return {(min(keys[one], keys[other]), max(keys[one], keys[other])) for one, other in found}


def make_samples(number: int, source: str = "web") -> list[Sample]:
    """A sample for each image."""
    return [
        Sample(SampleId(source, "x", row), (Node("image", image=row), Node("text", text=f"text {row}")))
        for row in range(number)
    ]


def find_leaks(files: Sequence[bytes], stats: Sequence[ImageStats], names: Sequence[str]) -> set[Pair]:
    """(row of an original, row of a copy) that decontamination calls the same, if the originals are a benchmark."""
    rows = [row for row, name in enumerate(names) if not name]
    others = [row for row, name in enumerate(names) if name]
    folder = Path(tempfile.mkdtemp())
    write_partition(folder / "exam", files, stats, rows)
    write_partition(folder / "web", files, stats, others)
    settings = Decontamination(against={})
    inputs = {f"exam/0/{path.name}": path for path in (folder / "exam").iterdir()}
    (folder / "index").mkdir()
    settings.index().run(inputs, folder / "index")
    inputs = {path.name: path for path in (folder / "web").iterdir()}
    inputs |= {f"{FOLDER}/{path.name}": path for path in (folder / "index").iterdir()}
    settings.contamination().run(inputs, folder)
    found = (each for each in read_findings(folder / "contamination.parquet") if each.kind == "image")
    return {(rows[int(each.item.rsplit("#", 1)[1])], others[each.sample]) for each in found}


def write_partition(folder: Path, files: Sequence[bytes], stats: Sequence[ImageStats], rows: Sequence[int]) -> None:
    """Samples, images and image stats of some files."""
    folder.mkdir()
    blank = dict.fromkeys(IMAGES.names)
    write_samples(folder / "samples.parquet", make_samples(len(rows), folder.name))
    shown = [{**blank, "image": image, "bytes": files[row]} for image, row in enumerate(rows)]
    write_rows(folder / "images.parquet", IMAGES, shown)
    write_rows(folder / "supplement.parquet", IMAGES, [])
    described = [{name: getattr(stats[row], name) for name in ImageStats.__slots__} for row in rows]
    write_image_stats(
        folder / "image_stats.parquet",
        [ImageStats(**{**each, "image": image}) for image, each in enumerate(described)],
    )


def measure_templates(sheets: Path | None) -> None:
    """How many pairs of drawn templates dedupe takes for near duplicates."""
    names = [name for name in TEMPLATES for _ in range(PER_TEMPLATE)]
    files = [encode_picture(draw_template(name, row)) for row, name in enumerate(names)]
    stats = [compute_image_stats(row, data) for row, data in enumerate(files)]
    found = find_by_dedupe(stats, {make_image_key(each): row for row, each in enumerate(stats)})
    by_template = Counter(names[one] for one, _ in found)
    pairs = sum(1 for one, other in combinations(names, 2) if one == other)
    told = ", ".join(f"{name} {count}" for name, count in by_template.items())
    print(f"templates: {len(found)} of {pairs} pairs of other text are taken for near duplicates; {told}")
    if sheets and found:
        draw_sheet(sheets / "templates.png", [(files[one], files[other]) for one, other in sorted(found)])


def measure_crowd(corpus: Path, name: str, number: int) -> None:
    """Copies that are found among pictures like their originals, and the pairs that are measured for it."""
    pictures = {hash_picture(data): data for data in read_set(corpus, name)}
    files = [pictures[order] for order in sorted(pictures)[:number]]
    copies = {edit: len(files) + EDITED * place for place, edit in enumerate(CROWD_EDITS)}
    for edit in CROWD_EDITS:
        for place, data in enumerate(files[:EDITED]):
            copy = EDITS[edit](decode_image(data), place)
            files.append(encode_picture(copy, "JPEG", quality=50) if edit.startswith("JPEG") else encode_picture(copy))
    stats = [compute_image_stats(row, data) for row, data in enumerate(files)]
    keys = {make_image_key(each): row for row, each in reversed(list(enumerate(stats)))}
    for cap in (DEFAULTS.cap, UNCAPPED):
        folder, seconds = run_steps(make_samples(len(stats)), stats, replace(DEFAULTS, cap=cap))
        found = found_pairs(folder, "image", DEFAULTS.image)
        pairs = {tuple(sorted((keys[one], keys[other]))) for one, other in found}
        told = ", ".join(
            f"{edit} {np.mean([(row, first + row) in pairs for row in range(EDITED)]):.3f}"
            for edit, first in copies.items()
        )
        print(f"crowd: {name}, {len(keys)} files, cap {cap:,}: {len(found):,} pairs found; recall {told}")
        print("    CPU seconds: " + ", ".join(f"{step} {value:.1f}" for step, value in seconds.items()), flush=True)


def measure_cost(corpus: Path, sheets: Path | None) -> None:
    """CPU seconds of the steps, and bytes of evidence."""
    files = dict[bytes, bytes]()
    for folder in sorted((corpus / "cauldron").iterdir()):
        seen = {hash_picture(data): data for data in read_set(corpus, folder.name)}
        files |= {order: seen[order] for order in sorted(seen)[:PER_SET]}
    stats = [compute_image_stats(row, data) for row, data in enumerate(files.values())]
    folder, seconds = run_steps(make_samples(len(stats)), stats)
    told = ", ".join(f"{step} {value:.2f}" for step, value in seconds.items())
    size = (folder / "image.evidence.npy").stat().st_size / len(stats)
    places = (folder / "image.places.parquet").stat().st_size / len(stats)
    print(
        f"cost: {len(stats)} pictures; CPU seconds: {told}; bytes a picture: evidence {size:.0f}, places {places:.0f}"
    )
    keys = {make_image_key(each): data for each, data in zip(stats, files.values(), strict=True)}
    found = sorted(found_pairs(folder, "image", DEFAULTS.image))
    print(f"    {len(found)} pairs found")
    if sheets and found:
        draw_sheet(sheets / "cost.png", [(keys[one], keys[other]) for one, other in found], 80)


def draw_sheet(path: Path, pairs: Sequence[tuple[bytes, bytes]], most: int = 40) -> None:
    """Up to `most` pairs side by side, evenly chosen, four to a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    chosen = pairs[:: -(-len(pairs) // most)]
    width, height = 230, 190
    sheet = Image.new("RGB", (8 * width, height * -(-len(chosen) // 4)), (150, 150, 190))
    for place, pair in enumerate(chosen):
        for side, data in enumerate(pair):
            picture = Image.open(io.BytesIO(data)).convert("RGB")
            picture.thumbnail((width - 10, height - 10))
            corner = ((2 * (place % 4) + side) * width, place // 4 * height)
            sheet.paste(picture, corner)
            if side:
                ImageDraw.Draw(sheet).line(
                    (corner[0] + width - 5, corner[1], corner[0] + width - 5, corner[1] + height)
                )
    sheet.save(path)


if __name__ == "__main__":
    main()
