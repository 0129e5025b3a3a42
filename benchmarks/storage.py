"""What it costs to store an image under a policy: ways of storing it beside each other, on images of yours.

    python -m benchmarks.storage --images FOLDER [--most 30] [--only anyres]

`parts` are what the policy renders, `inputs` its encoder inputs one by one, `picture` the decoded image and `original` its bytes as they
came, the last two rendered when they are read. Per image: kB of tar members, headers included; ms to write, from what the policy renders; ms
to load, from bytes to the encoder inputs that the trainer takes; and of their pixels the largest difference and the share that differs at all. CPU time
of one thread.
"""

from __future__ import annotations

import argparse
import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vlmill.pipeline.images import POLICIES, Layout, Policy, Unrenderable
from vlmill.pipeline.images.decode import Undecodable, decode_image
from vlmill.pipeline.images.pixels import encode_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

BLOCK = 512  # of a tar: a header, and members filled up to whole ones


@dataclass(frozen=True)
class Shown:
    """An image under a policy."""

    policy: Policy
    layout: Layout
    data: bytes
    picture: Image.Image
    parts: Mapping[str, Image.Image]
    inputs: Sequence[np.ndarray]

    def again(self, picture: Image.Image) -> Sequence[np.ndarray]:
        """Encoder inputs of a picture that is rendered when it is read."""
        return self.policy.tiles(self.policy.render(picture, self.layout), self.layout)


@dataclass(frozen=True)
class Way:
    """A way to store: members of a tar, and back to encoder inputs."""

    write: Callable[[Shown], list[bytes]]
    load: Callable[[Shown, list[bytes]], Sequence[np.ndarray]]


def ways() -> dict[str, Way]:
    """All of them, by name."""
    fastest = {"format": "WEBP", "lossless": True, "method": 0, "quality": 0}
    return {
        "parts, as stored": Way(
            lambda shown: [encode_image(picture, None)[1] for picture in shown.parts.values()], _parts(**fastest).load
        ),
        "parts, webp 0/0": _parts(**fastest),
        "parts, webp 0/75": _parts(**{**fastest, "quality": 75}),
        "parts, webp 1/0": _parts(**{**fastest, "method": 1}),
        "parts, webp 4/0": _parts(**{**fastest, "method": 4}),
        "parts, png 1": _parts(format="PNG", compress_level=1),
        "parts, png 6": _parts(format="PNG", compress_level=6),
        "parts, jpeg 90": _parts(format="JPEG", quality=90, subsampling=0),
        "parts, jpeg 95": _parts(format="JPEG", quality=95, subsampling=0),
        "inputs, webp 0/0": Way(
            lambda shown: [_encode(Image.fromarray(tile), **fastest) for tile in shown.inputs],
            lambda _, stored: [np.asarray(_read(data)) for data in stored],
        ),
        "picture, webp 0/0": Way(
            lambda shown: [_encode(shown.picture, **fastest)], lambda shown, stored: shown.again(_read(stored[0]))
        ),
        "original": Way(lambda shown: [shown.data], lambda shown, stored: shown.again(decode_image(stored[0]))),
    }


def _parts(**options: Any) -> Way:
    def load(shown: Shown, stored: list[bytes]) -> Sequence[np.ndarray]:
        read = {part: _read(data) for part, data in zip(shown.parts, stored, strict=True)}
        return shown.policy.tiles(read, shown.layout)

    return Way(lambda shown: [_encode(picture, **options) for picture in shown.parts.values()], load)


def _encode(picture: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, **options)
    return buffer.getvalue()


def _read(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def shown_under(policy: Policy, files: Sequence[Path]) -> Iterator[Shown]:
    """The files as far as they can be decoded and the policy has an answer."""
    for path in files:
        data = path.read_bytes()
        try:
            picture = decode_image(data)
            (layout,) = policy.layout([picture.size])
        except (Undecodable, Unrenderable):
            continue
        parts = policy.render(picture, layout)
        yield Shown(policy, layout, data, picture, parts, policy.tiles(parts, layout))


def measure(way: Way, images: Sequence[Shown]) -> str:
    """A line of the table."""
    size = largest = differing = values = 0
    writing = loading = 0.0
    for shown in images:
        start = time.process_time()
        stored = way.write(shown)
        written = time.process_time()
        loaded = way.load(shown, stored)
        end = time.process_time()
        writing, loading = writing + written - start, loading + end - written
        size += sum(BLOCK + -(-len(data) // BLOCK) * BLOCK for data in stored)
        for tile, exact in zip(loaded, shown.inputs, strict=True):
            difference = np.abs(tile.astype(np.int16) - exact)
            largest = max(largest, int(difference.max()))
            differing, values = differing + int(np.count_nonzero(difference)), values + difference.size
    number = len(images)
    return (
        f"{size / number / 1000:8.1f} kB  write {1000 * writing / number:6.2f} ms  load {1000 * loading / number:6.2f} ms  "
        f"off by {largest:3}  {differing / values:6.1%} of pixels"
    )


def main() -> None:
    """Print a table per policy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, metavar="FOLDER", help="with image files, at any depth")
    parser.add_argument("--most", type=int, default=30, help="images, taken evenly from the sorted files")
    parser.add_argument("--only", choices=list(POLICIES), help="one policy instead of all")
    arguments = parser.parse_args()
    files = sorted(path for path in arguments.images.rglob("*") if path.is_file())
    files = files[:: -(-len(files) // arguments.most) or 1]
    for kind in POLICIES if arguments.only is None else [arguments.only]:
        images = list(shown_under(POLICIES[kind](), files))
        if not images:
            parser.error(f"{arguments.images}: no image in it that {kind} can show")
        pixels = sum(shown.picture.width * shown.picture.height for shown in images) / len(images)
        inputs = sum(tile.size for shown in images for tile in shown.inputs) / 3 / len(images)
        print(
            f"{kind}: {len(images)} images of {pixels / 1e6:.2f} Mpx, {inputs / 1e6:.2f} Mpx of encoder inputs",
            flush=True,
        )
        for name, way in ways().items():
            print(f"  {name:18} {measure(way, images)}", flush=True)


if __name__ == "__main__":
    main()
