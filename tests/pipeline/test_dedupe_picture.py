"""Places and similarity of pictures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from vlmill.pipeline.dedupe import picture
from vlmill.pipeline.dedupe.candidates import IMAGE, find_candidates

SIZE = (320, 240)


def drawing(seed: int) -> Image.Image:
    """Shapes and bands of colour on a shaded ground."""
    random = np.random.default_rng(seed)
    ramp = np.linspace(*random.integers(20, 235, 2), SIZE[0])
    image = Image.fromarray(np.tile(ramp, (SIZE[1], 1)).astype(np.uint8)).convert("RGB")
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        left, top = random.integers(-20, SIZE[0] - 20), random.integers(-20, SIZE[1] - 20)
        box = (left, top, left + random.integers(20, 160), top + random.integers(20, 120))
        shape = pen.ellipse if random.random() < 0.5 else pen.rectangle
        shape([int(edge) for edge in box], fill=tuple(int(value) for value in random.integers(0, 256, 3)))
    return image


def thumbnails(*images: Image.Image) -> np.ndarray:
    small = [image.convert("L").resize((64, 64), Image.Resampling.LANCZOS) for image in images]
    return picture.stack_pictures([image.tobytes() for image in small])


def recompressed(image):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=50)
    return Image.open(buffer).convert("RGB")


def halved(image):
    return image.resize((SIZE[0] // 2, SIZE[1] // 2))


def cropped(image):
    return image.crop((16, 12, SIZE[0] - 16, SIZE[1] - 12))


def cut_at_two_sides(image):
    return image.crop((16, 12, *SIZE))


def captioned(image, words="a caption"):
    higher = Image.new("RGB", (SIZE[0], SIZE[1] + 20), "black")
    higher.paste(image)
    ImageDraw.Draw(higher).text((4, SIZE[1] + 4), words, "white")
    return higher


def covered(image):
    image = image.copy()
    ImageDraw.Draw(image).rectangle((0, SIZE[1] - 20, *SIZE), "white")
    return image


def brightened(image):
    return ImageEnhance.Brightness(image).enhance(1.1)


ALTERED = [recompressed, halved, cropped, cut_at_two_sides, captioned, covered, brightened]


def met(files: np.ndarray) -> set[tuple[int, int]]:
    """Pairs of files that are candidates."""
    filed = picture.hash_places(files)
    owners = np.repeat(np.arange(len(files), dtype=np.uint64), filed.shape[1])
    order = np.lexsort((owners, filed.ravel()))
    first, second, _ = find_candidates(IMAGE, filed.ravel()[order], owners[order], cap=64)
    return set(zip(owners[order][first].tolist(), owners[order][second].tolist(), strict=True))


@pytest.mark.parametrize("altered", ALTERED)
def test_altered_copies_are_met_and_measured_as_the_same_picture(altered):
    originals = [drawing(seed) for seed in range(40)]
    files = thumbnails(*originals, *(altered(image) for image in originals))
    found = met(files)
    for one, other in ((files[:40], files[40:]), (files[40:], files[:40])):
        similar = picture.measure_similarity(one, other) >= 0.97
        assert sum((number, number + 40) in found and similar[number] for number in range(40)) >= 38


@pytest.mark.parametrize("margin", [4, 8, 12])
def test_it_does_not_matter_which_of_two_pictures_was_cut_or_by_how_much(margin):
    originals = [drawing(seed) for seed in range(40)]
    cut = thumbnails(*(image.crop((margin, margin, SIZE[0] - margin, SIZE[1] - margin)) for image in originals))
    whole = thumbnails(*originals)
    assert (picture.measure_similarity(whole, cut) >= 0.97).sum() >= 38
    assert (picture.measure_similarity(cut, whole) >= 0.97).sum() >= 38


def test_different_pictures_are_not_the_same():
    files = thumbnails(*(drawing(seed) for seed in range(60)))
    one, other = np.triu_indices(60, 1)
    assert picture.measure_similarity(files[one], files[other]).max() == 0  # less than is told


def test_pale_pictures_are_not_the_same_for_having_the_same_caption():
    def pale(seed):
        return Image.blend(drawing(seed), Image.new("RGB", SIZE, "white"), 0.85)

    files = thumbnails(*(captioned(pale(seed)) for seed in range(12)))
    one, other = np.triu_indices(12, 1)
    assert picture.measure_similarity(files[one], files[other]).max() < 0.95
    assert picture.measure_similarity(files, files).min() == 1.0


def test_a_picture_with_nothing_in_it_is_flat():
    assert picture.find_flat(thumbnails(Image.new("RGB", SIZE, "ivory"), drawing(1))).tolist() == [True, False]


def test_each_pair_and_each_picture_stands_for_itself():
    files = thumbnails(*(drawing(seed // 2) if seed % 2 else brightened(drawing(seed // 2)) for seed in range(20)))
    together = picture.measure_similarity(files[::2], files[1::2])
    alone = [picture.measure_similarity(files[row : row + 1], files[row + 1 : row + 2])[0] for row in range(0, 20, 2)]
    assert together.tolist() == alone
    assert (picture.hash_places(files)[7:9] == picture.hash_places(files[7:9])).all()


def test_thumbnails_may_have_any_side():
    image = drawing(3)
    for side in (16, 32, 64):
        small = [shown.convert("L").resize((side, side)) for shown in (image, brightened(image))]
        one, other = (picture.stack_pictures([each.tobytes()]) for each in small)
        assert picture.measure_similarity(one, other)[0] > 0.95


def test_no_pictures_have_no_places():
    assert picture.hash_places(picture.stack_pictures([])).shape == (0, 8 * len(picture.WINDOWS))
    assert picture.find_flat(picture.stack_pictures([])).shape == (0,)


def test_a_pale_shape_and_a_dark_one_are_not_the_same():
    def square(grey):
        image = Image.new("RGB", SIZE, "white")
        ImageDraw.Draw(image).rectangle((80, 60, 200, 160), fill=(grey, grey, grey))
        return image

    files = thumbnails(square(30), square(140), square(34))
    assert picture.measure_similarity(files[:1], files[1:2])[0] < 0.95
    assert picture.measure_similarity(files[:1], files[2:])[0] > 0.97


def test_what_only_the_larger_copy_shows_is_not_held_against_a_small_one():
    icon = drawing(5).resize((32, 32))
    small = icon.resize((16, 16), Image.Resampling.LANCZOS)
    one, other = thumbnails(icon), thumbnails(small)
    known = picture.measure_similarity(one, other, (np.array([[32.0, 32.0]]), np.array([[16.0, 16.0]])))[0]
    assert known > 0.97
    assert known >= picture.measure_similarity(one, other)[0]


def test_a_picture_may_be_squeezed_but_a_strip_is_no_square():
    files = thumbnails(drawing(6), drawing(6))
    wide, square, strip = (np.array([size]) for size in ((240.0, 320.0), (200.0, 200.0), (40.0, 320.0)))
    assert picture.measure_similarity(files[:1], files[1:], (wide, square))[0] == 1
    assert picture.measure_similarity(files[:1], files[1:], (wide, strip))[0] == 0
