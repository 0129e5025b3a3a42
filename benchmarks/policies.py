"""Image policies against transformers' image processors: every pixel, every token, and the time beside each other.

    python -m benchmarks.policies [--sizes 1000] [--first 0] [--hostile FOLDER] [--only llava_next]

Drawn pictures of many sizes, or the files of a folder as far as they can be decoded. `refused` are sizes that the policy has no answer for;
`they fail` are images that the policy draws and the processor does not. Times are of one process on pictures in memory, from RGB to encoder
inputs, in CPU seconds, over the images that both draw; theirs leave normalising out.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tests.helpers.processors import (
    Case,
    cases,
    inputs,
    picture,
    same,
    sizes,
)
from vlmill.pipeline.images import Unrenderable
from vlmill.pipeline.images.decode import Undecodable, decode_image

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from PIL import Image


def drawn(first: int, number: int) -> Iterator[tuple[str, Image.Image]]:
    """A picture of each of `number` sizes, from number `first` of them on, with a name for it."""
    for seed, size in islice(enumerate(sizes(first + number)), first, None):
        yield f"{size[0]} x {size[1]} px", picture(size, seed)


def files(folder: Path) -> Iterator[tuple[str, Image.Image]]:
    """The pictures in a folder; what the pipeline would not decode is left out."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            yield path.name, decode_image(path.read_bytes())
        except Undecodable:
            continue


def compare(name: str, case: Case, images: Iterable[tuple[str, Image.Image]]) -> str:
    """One line of the table; images on which the two differ are printed as they are met."""
    count, ours, theirs = Counter[str](), 0.0, 0.0
    for which, image in images:
        start = time.process_time()
        try:
            (layout,) = case.policy.layout([image.size])
        except Unrenderable:
            count["refused"] += 1
            continue
        made = case.ours(image, layout)
        middle = time.process_time()
        try:
            processed = case.processed(image)
        except Exception as error:  # noqa: BLE001 - whatever their arithmetic runs into
            count["they fail"] += 1
            print(f"{name}: {which}: {type(error).__name__}: {error}", flush=True)
            continue
        end = time.process_time()
        ours, theirs = ours + middle - start, theirs + end - middle
        count["compared"] += 1
        if not same(made, inputs(processed)):
            count["with other pixels"] += 1
            print(f"{name}: {which}: other pixels", flush=True)
        if layout.tokens != case.tokens(image.size):
            count["with other tokens"] += 1
            print(f"{name}: {which}: {layout.tokens} tokens, theirs {case.tokens(image.size)}", flush=True)
    columns = ("compared", "with other pixels", "with other tokens", "refused", "they fail")
    done = max(1, count["compared"])
    return (
        f"{name:16} "
        + "  ".join(f"{count[column]:4} {column}" for column in columns)
        + f"  ours {1000 * ours / done:6.2f} ms  theirs {1000 * theirs / done:6.2f} ms  {theirs / max(ours, 1e-9):5.2f} times ours"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, default=1000, help="how many sizes to draw")
    parser.add_argument("--first", type=int, default=0, help="number of the first size: a long comparison in pieces")
    parser.add_argument("--hostile", type=Path, metavar="FOLDER", help="compare on these files instead")
    parser.add_argument("--only", choices=list(cases()), help="one pair instead of all")
    arguments = parser.parse_args()
    for name, case in cases().items():
        if arguments.only in {None, name}:
            images = files(arguments.hostile) if arguments.hostile else drawn(arguments.first, arguments.sizes)
            print(compare(name, case, images), flush=True)


if __name__ == "__main__":
    main()
