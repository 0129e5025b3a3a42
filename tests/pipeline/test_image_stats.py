"""Inspect: facts about every image from one decode, equal to plain definitions, the same on every machine."""

import hashlib
import os
import signal
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from tests.helpers.upstream import encoded, picture
from vlmill.pipeline.core.keys import make_key
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import IMAGE_STATS, IMAGES, ImageStats, read_image_stats, write_image_stats, write_rows
from vlmill.pipeline.core.sandbox import IDLE, Sandbox
from vlmill.pipeline.images.thumbnail import SIDE, read_thumbnail
from vlmill.pipeline.steps.image_stats import (
    BINARY,
    ComputeImageStats,
    _examine_image,
    compute_image_stats,
    compute_phash,
    measure_contrast,
    measure_sharpness,
)

LUMINANCE = arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24)))


def image_rows(images):
    """Rows of images.parquet: bytes, or the reason why there are none."""
    return [
        {
            "image": number,
            "reason": item if isinstance(item, Reason) else None,
            "bytes": None if isinstance(item, Reason) else item,
        }
        for number, item in enumerate(images)
    ]


@pytest.fixture
def inspect(tmp_path):
    """Inspect these images; gives the facts and the books."""

    def run(images, supplement=None, **options):
        inputs = {"images.parquet": tmp_path / "images.parquet"}
        write_rows(inputs["images.parquet"], IMAGES, image_rows(images))
        if supplement is not None:
            inputs["supplement.parquet"] = tmp_path / "supplement.parquet"
            write_rows(inputs["supplement.parquet"], IMAGES, supplement)
        folder = tmp_path / "out"
        folder.mkdir(exist_ok=True)
        counts = ComputeImageStats(**options).run(inputs, folder)
        assert all(count.balanced() for count in counts.values())
        return read_image_stats(folder / "image_stats.parquet"), counts["images_measured"].to_json()

    return run


def test_an_image_is_described_as_it_came_and_as_it_stands(inspect):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = picture(1, (64, 32), "JPEG", mode="L", exif=exif)
    ((stats,), _) = inspect([data])
    assert (stats.format, stats.mode, stats.width, stats.height, stats.frames) == ("JPEG", "L", 32, 64, 1)
    assert stats.sha256 == hashlib.sha256(data).hexdigest()
    assert read_thumbnail(stats.thumbnail).shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_frames_are_counted(form):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    assert compute_image_stats(0, encoded(frames[0], form, save_all=True, append_images=frames[1:])).frames == 3


def test_every_image_has_a_row_and_failures_have_their_reason(inspect):
    images = [picture(), Reason.HTTP_CLIENT_ERROR, b"no image", picture(size=(200, 200)), Reason.TIMED_OUT]
    image_stats, books = inspect(images, max_pixels=39_999)
    assert [stats.image for stats in image_stats] == [0, 1, 2, 3, 4]
    assert [stats.reason for stats in image_stats] == [
        None,
        "http_client_error",
        "undecodable",
        "too_many_pixels",
        "timed_out",
    ]
    assert [bool(stats.sha256) for stats in image_stats] == [True, False, True, True, False]
    assert books == {"in": 3, "kept": 1, "dropped": {}, "failed": {"too_many_pixels": 1, "undecodable": 1}}


def test_what_a_retry_brought_goes_before_what_the_first_attempt_did_not(inspect):
    later = {**image_rows([picture(2)])[0], "image": 1}
    image_stats, _ = inspect([picture(1), Reason.CONNECTION], supplement=[later])
    assert [stats.reason for stats in image_stats] == [None, None]
    assert image_stats[1].sha256 == hashlib.sha256(picture(2)).hexdigest()
    assert ComputeImageStats().reads == ("images.parquet", "supplement.parquet")


@settings(max_examples=60, deadline=None)
@given(form=st.sampled_from(["GIF", "PNG", "WEBP", "TIFF", "AVIF"]), draw=st.data())
def test_damage_to_an_animation_ends_in_facts_and_never_in_an_exception(form, draw):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    data = bytearray(encoded(frames[0], form, save_all=True, append_images=frames[1:]))
    for place in draw.draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=6)):
        data[place] = draw.draw(st.integers(0, 255))
    stats = compute_image_stats(0, bytes(data), 100_000)
    assert stats.reason in {None, Reason.UNDECODABLE, Reason.TOO_MANY_PIXELS}
    assert bool(stats.width) == (stats.reason is None)


def test_no_images_leave_an_empty_table(inspect):
    assert inspect([]) == ([], {"in": 0, "kept": 0, "dropped": {}, "failed": {}})


def test_facts_are_in_the_table_to_the_last_bit(tmp_path, inspect):
    ((stats,), _) = inspect([picture(5, (90, 50), mode="RGBA")])
    again = compute_image_stats(0, picture(5, (90, 50), mode="RGBA"))
    assert (stats.phash, stats.thumbnail) == (again.phash, again.thumbnail)
    assert (stats.contrast, stats.sharpness) == (np.float32(again.contrast), np.float32(again.sharpness))
    assert set(ImageStats.__slots__) == set(IMAGE_STATS.names)


def waves(width, height, across, down):
    """A grey picture of crossing waves."""
    x, y = np.meshgrid(np.arange(width) / width, np.arange(height) / height)
    return Image.fromarray((127 + 60 * np.sin(across * x + 1) + 60 * np.cos(down * y * (1 + x))).astype(np.uint8))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (waves(64, 64, 9, 5), "b57fc0b46a956894"),
        (waves(301, 97, 3, 20), "d6808e80bf80fff8"),
        (waves(20, 30, 6, 6), "eabfe095aa483742"),
        (waves(1000, 700, 40, 31), "aaa8ff20ff00ff00"),
    ],
)
def test_the_hash_is_that_of_imagehash_4_3(image, expected):
    assert f"{compute_image_stats(0, encoded(image)).phash:016x}" == expected


@given(arrays(np.uint8, (32, 32)))
def test_phash_compares_the_low_frequencies_with_their_median(pixels):
    cosines = np.array(
        [[np.cos(np.pi * frequency * (2 * place + 1) / 64) for place in range(32)] for frequency in range(32)]
    )
    spectrum = np.einsum("vy,yx,ux->vu", cosines, pixels.astype(float), cosines)  # DCT-II, twice
    low = spectrum[:8, :8].round(7).ravel()
    bits = "".join("1" if value > np.median(low) else "0" for value in low)
    near = np.abs(low - np.median(low)) < 1e-5  # where rounding decides
    assert all(
        bit == found or close
        for bit, found, close in zip(bits, f"{compute_phash(Image.fromarray(pixels)):064b}", near, strict=True)
    )


@given(level=st.integers(0, 255), width=st.integers(1, 60), height=st.integers(1, 60))
def test_a_flat_picture_has_no_noise_in_its_facts(level, width, height):
    image = Image.new("L", (width, height), level)
    stats = compute_image_stats(0, encoded(image))
    assert (stats.contrast, stats.sharpness) == (0.0, 0.0)
    assert stats.phash == (1 << 63 if level else 0)


@given(LUMINANCE)
def test_blank_is_the_standard_deviation(pixels):
    assert measure_contrast(Image.fromarray(pixels)) == pytest.approx(pixels.std(), abs=0.001)


@given(LUMINANCE)
def test_blur_is_the_variance_of_the_laplacian(pixels):
    height, width = pixels.shape
    at = pixels.astype(int)
    near = [
        at[y - 1, x] + at[y + 1, x] + at[y, x - 1] + at[y, x + 1] - 4 * at[y, x]
        for y in range(1, height - 1)
        for x in range(1, width - 1)
    ]
    assert measure_sharpness(Image.fromarray(pixels)) == pytest.approx(np.var(near) if near else 0.0, abs=0.001)


def test_blur_falls_as_a_picture_is_blurred_and_does_not_depend_on_its_scale():
    sharp = Image.fromarray(np.random.default_rng(0).integers(0, 2, (256, 256), np.uint8) * 255)
    soft = sharp.resize((64, 64)).resize((256, 256))
    assert measure_sharpness(sharp) > 100 * measure_sharpness(soft)
    assert measure_sharpness(sharp.resize((1024, 1024), Image.Resampling.NEAREST)) == measure_sharpness(sharp)


# -- in a child process ----------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def no_child_is_left():
    yield
    for sandboxes in IDLE.values():
        for sandbox in sandboxes:
            sandbox.close()


WHOLE = compute_image_stats(0, picture())
SOUND = {**asdict(WHOLE), **{name: getattr(WHOLE, name).hex() for name in BINARY}}
LIES = (
    {"width": 1 << 40},
    {"width": -1},
    {"height": "8"},
    {"phash": 1 << 64},
    {"thumbnail": "xx"},
    {"thumbnail": "00"},
    {"content": "00"},
    {"content": SOUND["thumbnail"], "margins": "01000000" * 3},
    {"content": SOUND["thumbnail"], "margins": "ff000000" * 4},
    {"reason": "no reason"},
    {"format": None},
    {"contrast": 1},
    {"more": 1},
)


def obey_image(data, max_pixels):
    """A decoder that does what its image says."""
    if data == b"KILL":
        os.kill(os.getpid(), signal.SIGSEGV)
    if data == b"HANG":
        signal.pause()
    if data == b"EAT":
        bytearray(3 << 30)
    if data.startswith(b"LIE"):
        yield {**SOUND, **LIES[int(data[3:])]}
    elif data == b"LIST":
        yield [1, 2]
    else:
        yield from _examine_image(data, max_pixels)
        POISONED.append(data == b"POISON")
        if len(POISONED) > 1 and any(POISONED[:-1]):
            os.abort()


POISONED = []


@pytest.fixture
def obeying(monkeypatch):
    monkeypatch.setattr("vlmill.pipeline.steps.image_stats._examine_image", obey_image)


def test_an_image_that_breaks_its_decoder_is_a_fact_and_the_others_are_as_ever(inspect, obeying):
    images = [picture(), b"KILL", b"HANG", b"EAT", b"no image", picture(2)]
    image_stats, books = inspect(images, seconds=1.0)
    reasons = [None, "crashed", "timed_out", "out_of_memory", "undecodable", None]
    assert [stats.reason for stats in image_stats] == reasons
    assert image_stats[1].sha256 == hashlib.sha256(b"KILL").hexdigest()
    assert books["failed"] == {"crashed": 1, "timed_out": 1, "out_of_memory": 1, "undecodable": 1}


def test_a_child_that_an_earlier_image_poisoned_costs_no_later_one(inspect, obeying):
    image_stats, _ = inspect([b"POISON", picture(1), picture(2)])
    assert [stats.reason for stats in image_stats] == ["undecodable", None, None]


@pytest.mark.parametrize("number", range(len(LIES)))
def test_facts_that_no_table_holds_are_those_of_a_broken_decoder(inspect, obeying, number):
    image_stats, _ = inspect([b"LIE%d" % number, b"LIST", picture(1)])
    assert [stats.reason for stats in image_stats] == ["crashed", "crashed", None]


def test_one_child_serves_all_images_and_the_next_partition_too(inspect, monkeypatch):
    started = []
    start = Sandbox._start
    monkeypatch.setattr(Sandbox, "_start", lambda sandbox: started.append(sandbox) or start(sandbox))
    for _ in range(2):
        inspect([picture(seed) for seed in range(5)], seconds=119.0)
    assert len(started) == 1


def test_the_same_bytes_under_other_addresses_are_decoded_once_and_have_the_same_facts(inspect, tmp_path, monkeypatch):
    decoded, run = [], Sandbox.run
    monkeypatch.setattr(Sandbox, "run", lambda sandbox, data, *more: decoded.append(data) or run(sandbox, data, *more))
    images = [picture(1), b"no image", picture(2), picture(1), b"no image", picture(1), picture(3)]
    _, books = inspect(images)
    assert (books["kept"], books["failed"]) == (5, {"undecodable": 2})
    write_image_stats(tmp_path / "here.parquet", map(compute_image_stats, range(7), images))
    assert (tmp_path / "out" / "image_stats.parquet").read_bytes() == (tmp_path / "here.parquet").read_bytes()
    assert [decoded.count(picture(seed)) for seed in (1, 2, 3)] == [1, 1, 1]


def test_no_more_facts_are_kept_than_have_a_bound(inspect, monkeypatch):
    decoded, run = [], Sandbox.run
    monkeypatch.setattr(Sandbox, "run", lambda sandbox, data, *more: decoded.append(data) or run(sandbox, data, *more))
    monkeypatch.setattr("vlmill.pipeline.steps.image_stats.KNOWN", 1)
    inspect([picture(1), picture(1), picture(2), picture(1)])
    assert [decoded.count(picture(seed)) for seed in (1, 2)] == [2, 1]


def test_the_child_finds_what_a_decode_in_this_process_finds_to_the_byte(inspect, tmp_path):
    images = [picture(), b"no image", picture(2, form="GIF")]
    inspect(images)
    here = (compute_image_stats(number, data) for number, data in enumerate(images))
    write_image_stats(tmp_path / "here.parquet", here)
    assert (tmp_path / "out" / "image_stats.parquet").read_bytes() == (tmp_path / "here.parquet").read_bytes()


def test_the_time_limit_is_in_no_key():
    assert make_key(ComputeImageStats(), {}) == make_key(ComputeImageStats(seconds=1.0), {})
    assert make_key(ComputeImageStats(), {}) != make_key(ComputeImageStats(max_pixels=1), {})
