"""What rendered pictures take on disk and to load, by image policy and by format, beside the originals.

    python -m benchmarks.stored photographs/ screenshots/ pages/

Each folder holds pictures of one sort; the first ten by name are read. Times are CPU time of one thread per image, the
least of five rounds: of loading, from stored bytes to encoder inputs; of an original, from its bytes to the same.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from vlmill.pipeline.images import POLICIES, Layout, Policy
from vlmill.pipeline.images.decode import decode_image
from vlmill.pipeline.images.pixels import encode_image, to_arrays
from vlmill.train.data import decode_stored

PICTURES, ROUNDS = 10, 5
FORMATS: dict[str, dict[str, Any]] = {
    **{
        f"WebP, method {method}": {"format": "WEBP", "lossless": True, "quality": 0, "method": method}
        for method in (0, 1, 4, 6)
    },
    "PNG": {"format": "PNG"},
    "JPEG, quality 95": {"format": "JPEG", "quality": 95, "subsampling": 0},
}


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    sorts = {
        folder.name: [path.read_bytes() for path in sorted(folder.iterdir())[:PICTURES]] for folder in given.folders
    }
    for name, originals in sorts.items():
        sizes = [decode_image(data).size for data in originals]
        pixels = sum(width * height for width, height in sizes) / len(sizes) / 1e6
        print(f"{name}: {len(originals)} of {pixels:.2f} Mpx and {_average(map(len, originals)) / 1e3:.0f} kB")
    print("\npolicy: kB stored, ms to write, ms to load (ms from the original)")
    for kind, make in POLICIES.items():
        print(f"| {kind} | " + " | ".join(_describe(make(), originals) for originals in sorts.values()) + " |")
    print("\nformat of the letterboxed pictures: kB, ms to write, ms to read")
    for name, options in FORMATS.items():
        print(f"| {name} | " + " | ".join(_describe_format(options, originals) for originals in sorts.values()) + " |")


def _describe(policy: Policy, originals: Sequence[bytes]) -> str:
    """What pictures take under a policy."""
    found = list[tuple[float, float, float, float]]()
    for data in originals:
        image = decode_image(data)
        (layout,) = policy.layout([image.size])
        stored = _store(policy, image, layout)
        found.append(
            (
                sum(map(len, stored.values())) / 1e3,
                _time(lambda image=image, layout=layout: _store(policy, image, layout)),
                _time(lambda stored=stored, layout=layout: _load(policy, stored, layout)),
                _time(lambda data=data, layout=layout: _draw(policy, data, layout)),
            )
        )
    size, write, load, draw = map(_average, zip(*found, strict=True))
    return f"{size:.0f}, {write:.1f}, {load:.1f} ({draw:.1f})"


def _store(policy: Policy, image: Image.Image, layout: Layout) -> dict[str, bytes]:
    return {name: encode_image(part, policy.quality)[1] for name, part in policy.render(image, layout).items()}


def _load(policy: Policy, stored: dict[str, bytes], layout: Layout) -> list[np.ndarray]:
    return policy.tiles({name: decode_stored(data) for name, data in stored.items()}, layout)


def _draw(policy: Policy, data: bytes, layout: Layout) -> list[np.ndarray]:
    return policy.tiles(to_arrays(policy.render(decode_image(data), layout)), layout)


def _describe_format(options: dict[str, Any], originals: Sequence[bytes]) -> str:
    """What the letterboxed squares of pictures take in a format."""
    policy, found = POLICIES["letterbox"](), list[tuple[float, float, float]]()
    for data in originals:
        image = decode_image(data)
        (part,) = policy.render(image, policy.layout([image.size])[0]).values()
        stored = _save(part, options)
        write = _time(lambda part=part: _save(part, options))
        found.append((len(stored) / 1e3, write, _time(lambda stored=stored: decode_stored(stored))))
    size, write, read = map(_average, zip(*found, strict=True))
    return f"{size:.0f}, {write:.1f}, {read:.1f}"


def _save(part: Image.Image, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    part.save(buffer, **options)
    return buffer.getvalue()


def _time(work: Callable[[], object]) -> float:
    """Milliseconds of CPU time, the least of some rounds."""
    return min(_clock(work) for _ in range(ROUNDS))


def _clock(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return 1e3 * (time.process_time() - began)


def _average(values: Iterator[float] | Sequence[float]) -> float:
    return float(np.mean([*values]))


if __name__ == "__main__":
    main()
