"""How many altered copies of images dedupe finds again, what it takes for copies that are none, and at what speed."""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import imagehash
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from benchmarks.dedupe_steps import DEFAULTS, found_pairs, run_steps, timed
from vlmill.pipeline.core.sample import ImageStats, Node, Sample, SampleId
from vlmill.pipeline.dedupe.signature import make_image_key
from vlmill.pipeline.images.decode import Undecodable, decode_image
from vlmill.pipeline.steps.image_stats import compute_image_stats

DISTINCT = 0.9
"""Correlation of luminance above which two files may be the same picture: only one is taken, and to find them is no
error."""
SIDE = 256
"""Pixels a side at which that is measured."""
TOGETHER = 128
"""Files that are held against all taken ones at a time."""
HAMMING = 8
"""Differing bits of imagehash's phash up to which its users call pictures the same."""
FLAT = 5.0
"""Standard deviation of luminance under which a file is no picture."""


def half(path: Path) -> int:
    """Which half of the corpus a file belongs to, by its name."""
    return hashlib.sha256(path.name.encode()).digest()[0] & 1


def distinct(paths: Sequence[Path], number: int) -> list[bytes]:
    """Up to `number` files in a random order, of which no two look alike, by comparing each with all taken."""
    taken, views = list[bytes](), np.empty((number, SIDE * SIDE), np.float32)
    order = np.random.default_rng(17).permutation(len(paths)).tolist()
    for start in range(0, len(order), TOGETHER):
        seen = [(data, view) for index in order[start : start + TOGETHER] for data, view in _views(paths[index])]
        block, before = np.stack([view for _, view in seen]), len(taken)
        alike = (block @ views[:before].T).max(axis=1, initial=0)
        for (data, view), most in zip(seen, alike, strict=True):
            if len(taken) < number and max(most, np.max(views[before : len(taken)] @ view, initial=0)) <= DISTINCT:
                views[len(taken)] = view
                taken.append(data)
        if len(taken) == number:
            break
    return taken


def _views(path: Path) -> Iterator[tuple[bytes, np.ndarray]]:
    """A file and its luminance at SIDE, with mean 0 and norm 1; nothing of a file that shows nothing."""
    data = path.read_bytes()
    try:
        picture = decode_image(data)
    except Undecodable:
        return
    view = np.asarray(picture.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS), np.float32).ravel()
    view = view - view.mean()
    if view.std() >= FLAT:
        yield data, view / np.linalg.norm(view)


def alterations(picture: Image.Image) -> Iterator[tuple[str, bytes]]:
    """What happens to pictures on their way from one site to another."""
    width, height = picture.size
    yield "JPEG, quality 50", encoded(picture, "JPEG", quality=50)
    yield "half size", encoded(picture.resize((max(1, width // 2), max(1, height // 2)), Image.Resampling.LANCZOS))
    left, top = round(width * 0.05), round(height * 0.05)
    yield (
        "5 % off each side",
        encoded(picture.crop((left, top, max(left + 1, width - left), max(top + 1, height - top)))),
    )
    yield "5 % off two sides", encoded(picture.crop((left, top, width, height)))
    bar = max(1, round(height * 0.08))
    captioned = Image.new("RGB", (width, height + bar), "black")
    captioned.paste(picture)
    ImageDraw.Draw(captioned).text((3, height), "a caption of some words", "white")
    yield "caption bar below", encoded(captioned)
    covered = picture.copy()
    ImageDraw.Draw(covered).rectangle((0, height - bar, width, height), "white")
    ImageDraw.Draw(covered).text((3, height - bar), "a caption of some words", "black")
    yield "caption bar over it", encoded(covered)
    yield "brightness + 10 %", encoded(ImageEnhance.Brightness(picture).enhance(1.1))
    yield "PNG", encoded(picture)


def encoded(picture: Image.Image, kind: str = "PNG", **options: int) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def measure_images(originals: Sequence[bytes], sheet: Path | None) -> None:
    """How many alterations are found again, and how many of all pairs found are of one picture."""
    image_stats, files, input_file = list[ImageStats](), list[bytes](), dict[int, int]()
    altered, kept = defaultdict[str, list[tuple[int, int]]](list), 0
    for number, data in enumerate(originals):
        for name, copy in [("", data), *alterations(decode_image(data))]:
            image_stats.append(compute_image_stats(len(image_stats), copy))
            files.append(copy)
            key = make_image_key(image_stats[-1])
            input_file.setdefault(key, number)
            if name:
                altered[name].append((min(kept, key), max(kept, key)))
            else:
                kept = key
    samples = [
        Sample(SampleId("web", "x", row), (Node("image", image=row), Node("text", text=str(row))))
        for row in range(len(image_stats))
    ]
    folder, seconds = run_steps(samples, image_stats)
    print(f"{len(originals)} images, {len(input_file)} files")
    found = found_pairs(folder, "image", DEFAULTS.image)
    wrong = report_images(f"here, at {DEFAULTS.image}", altered, found, input_file)
    wrong = {pair: errors for pair, errors in wrong.items() if not shifted(*(originals[number] for number in pair))}
    precision = 1 - sum(map(len, wrong.values())) / len(found)
    print(
        f"    precision {precision:.4f} by pictures in their best alignment; {len(wrong)} pairs of pictures "
        "taken for one"
    )
    report_images(f"imagehash's phash, at {HAMMING}", altered, near_hashes(image_stats), input_file)
    report_speed(image_stats, files, seconds)
    if sheet and wrong:
        draw(
            sheet,
            [tuple(files[key_row(image_stats, key)] for key in errors[0]) for errors in list(wrong.values())[:20]],
        )


def key_row(image_stats: Sequence[ImageStats], key: int) -> int:
    """The first file with a key."""
    return next(row for row, stats in enumerate(image_stats) if make_image_key(stats) == key)


def near_hashes(image_stats: Sequence[ImageStats]) -> set[tuple[int, int]]:
    """Pairs of keys whose hashes differ in at most HAMMING bits."""
    hashes, keys = (
        np.array([stats.phash for stats in image_stats], np.uint64),
        [make_image_key(stats) for stats in image_stats],
    )
    pairs = set()
    for row in range(len(keys)):
        for other in np.flatnonzero(np.bitwise_count(hashes[:row] ^ hashes[row]) <= HAMMING).tolist():
            if keys[other] != keys[row]:
                pairs.add((min(keys[other], keys[row]), max(keys[other], keys[row])))
    return pairs


def report_images(
    name: str, altered: Mapping[str, list[tuple[int, int]]], found: set[tuple[int, int]], input_file: Mapping[int, int]
) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Print recall by alteration and precision over all pairs of files; returns wrong pairs by pair of pictures."""
    print(f"  {name}: {len(found)} pairs of files")
    for kind, pairs in altered.items():
        recall = sum(one == other or (one, other) in found for one, other in pairs) / len(pairs)
        print(f"    {kind:20} recall {recall:.4f}")
    wrong = dict[tuple[int, int], list[tuple[int, int]]]()
    for pair in sorted(found):
        one, other = sorted(input_file[key] for key in pair)
        if one != other:
            wrong.setdefault((one, other), []).append(pair)
    precision = 1 - sum(map(len, wrong.values())) / len(found)
    print(f"    precision {precision:.4f} by pictures as they lie; {len(wrong)} pairs of pictures taken for one")
    return wrong


def shifted(one: bytes, other: bytes) -> bool:
    """Whether two files are the same picture, cut or framed differently.

    Some affine map makes them correlate above DISTINCT.

    Maps are sought by OpenCV's maximiser of the enhanced correlation coefficient (Evangelidis and Psarakis, 2008), from
    several starts, and have to leave three quarters of the picture in common.
    """
    a, b = (
        np.asarray(decode_image(data).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS))
        for data in (one, other)
    )
    return any(_aligned(first, second, start) > DISTINCT for first, second in ((a, b), (b, a)) for start in _starts())


def _starts() -> Iterator[np.ndarray]:
    """Affine maps: the identity, and sizes of 0.9 to 1.1 in the middle, at the edges and in the corners."""
    yield np.eye(2, 3, dtype=np.float32)
    for zoom in (0.9, 0.94, 1.06, 1.11):
        room = abs(1 - zoom) * SIDE / 2
        for right in (-room, 0, room):
            for down in (-room, 0, room):
                middle = (1 - zoom) * SIDE / 2
                yield np.array([[zoom, 0, middle + right], [0, zoom, middle + down]], np.float32)


def _aligned(one: np.ndarray, other: np.ndarray, start: np.ndarray) -> float:
    """The correlation of what two pictures share, aligned from a start; 0 if that is too little, or nothing."""
    ends = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-5)
    try:
        _, found = cv2.findTransformECC(one, other, start.copy(), cv2.MOTION_AFFINE, ends, None, 5)
    except cv2.error:  # it diverged, or one of them is flat
        return 0.0
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    common = cv2.warpAffine(np.ones((SIDE, SIDE), np.float32), found, (SIDE, SIDE), flags=flags) > 0.99
    if common.mean() < 0.75:
        return 0.0
    moved = cv2.warpAffine(other, found, (SIDE, SIDE), flags=flags)
    return float(np.nan_to_num(np.corrcoef(one[common], moved[common])[0, 1]))


def report_speed(image_stats: Sequence[ImageStats], files: Sequence[bytes], seconds: Mapping[str, float]) -> None:
    """Print images per second, with and without decoding, beside imagehash on some of the files."""
    some = files[:: max(1, len(files) // 500)]
    looking = timed(lambda: [compute_image_stats(0, data) for data in some]) / len(some)
    hashing = timed(lambda: [imagehash.phash(decode_image(data)) for data in some]) / len(some)
    steps = sum(seconds.values()) / len(image_stats)
    print("  the steps with their files: " + ", ".join(f"{step} {value:.2f} s" for step, value in seconds.items()))
    print(
        f"  images/s: steps {1 / steps:.0f}, with decoding and all facts {1 / (steps + looking):.0f}; imagehash "
        f"decodes and hashes {1 / hashing:.0f}"
    )


def draw(path: Path, pairs: Sequence[tuple[bytes, ...]]) -> None:
    """Pairs side by side, four to a row."""
    width, height = 230, 150
    sheet = Image.new("RGB", (8 * width, height * -(-len(pairs) // 4)), "white")
    for place, pair in enumerate(pairs):
        for side, data in enumerate(pair):
            picture = decode_image(data)
            picture.thumbnail((width - 6, height - 6))
            corner = ((2 * (place % 4) + side) * width, place // 4 * height)
            sheet.paste(picture, corner)
            ImageDraw.Draw(sheet).rectangle(
                (*corner, corner[0] + picture.width, corner[1] + picture.height), outline="red"
            )
    sheet.save(path)
