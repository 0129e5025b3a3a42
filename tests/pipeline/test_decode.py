"""Decoding: what transformers would make of the same file, and one kind of exception for everything else."""

import contextlib
import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps
from transformers.image_transforms import convert_to_rgb

from tests.helpers.upstream import encoded, picture
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.images.decode import (
    FORMATS,
    MAX_SCANS,
    MAX_SIDE,
    Undecodable,
    count_scans,
    decode_image,
    read_webp_size,
)

WHITE = (255, 255, 255)


def expected(data: bytes) -> np.ndarray:
    """What transformers' PIL processors start from, after the rotation that its `load_image` does."""
    return convert_to_rgb(ImageOps.exif_transpose(Image.open(io.BytesIO(data))), return_numpy=True)


def palette_with_transparency() -> bytes:
    image = Image.open(io.BytesIO(picture(1))).quantize(8)
    return encoded(image, "PNG", transparency=bytes([0, 128, 255]))


def half_transparent(mode: str) -> Image.Image:
    image = Image.open(io.BytesIO(picture(2))).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image.convert(mode)


FILES = {
    "jpeg": picture(form="JPEG"),
    "grey jpeg": picture(form="JPEG", mode="L"),
    "cmyk jpeg": picture(form="JPEG", mode="CMYK"),
    "png": picture(),
    "1-bit png": picture(mode="1"),
    "palette": encoded(Image.open(io.BytesIO(picture())).quantize(16)),
    "palette with one transparent colour": encoded(Image.open(io.BytesIO(picture())).quantize(16), transparency=2),
    "palette with an alpha table": palette_with_transparency(),
    "rgb with one transparent colour": picture(transparency=(255, 0, 0)),
    "grey with alpha": encoded(half_transparent("LA")),
    "rgb with alpha": encoded(half_transparent("RGBA")),
    "opaque rgba": picture(mode="RGBA"),
    "palette with alpha": encoded(half_transparent("RGBA").convert("PA"), "TIFF"),
    "lossless webp with alpha": encoded(half_transparent("RGBA"), "WEBP", lossless=True),
    "gif": picture(form="GIF"),
    "bmp": picture(form="BMP"),
    "avif": picture(form="AVIF"),
    "jpeg 2000": picture(form="JPEG2000"),
    "tiff in lab": encoded(Image.new("LAB", (4, 4), (200, 120, 130)), "TIFF"),
}


@pytest.mark.parametrize("name", FILES)
def test_pixels_equal_what_transformers_makes_of_the_file(name):
    image = decode_image(FILES[name])
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), expected(FILES[name]))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_a_picture_exactly_once(form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = picture(3, (64, 32), form, exif=exif)
    image = decode_image(data)
    assert image.size == ((64, 32) if orientation < 5 else (32, 64))
    np.testing.assert_array_equal(np.asarray(image), expected(data))


def test_broken_exif_turns_nothing_and_loses_nothing():
    assert decode_image(picture(form="JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")).size == (40, 30)


def test_transparency_becomes_white_not_what_lies_beneath():
    assert decode_image(encoded(Image.new("RGBA", (2, 2), (200, 0, 0, 0)))).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(form):
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    data = encoded(red, form, save_all=True, append_images=[blue], **({"lossless": True} if form == "WEBP" else {}))
    assert decode_image(data).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_high_byte_instead_of_turning_white(form):
    levels = np.array([[0, 255, 256, 0x1234, 0x8000, 0xFFFF]], np.uint16)
    assert np.asarray(decode_image(encoded(Image.fromarray(levels), form)))[0, :, 0].tolist() == [
        0,
        0,
        1,
        0x12,
        0x80,
        0xFF,
    ]


def test_16_bit_grey_and_16_bit_colour_agree():
    def png(colour: int, channels: int) -> bytes:
        rows = b"".join(b"\0" + struct.pack(f">{channels}H", *[level] * channels) for level in (0, 300, 40000, 65535))
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in [
                (b"IHDR", struct.pack(">IIBBBBB", 1, 4, 16, colour, 0, 0, 0)),
                (b"IDAT", zlib.compress(rows)),
                (b"IEND", b""),
            ]
        )

    np.testing.assert_array_equal(np.asarray(decode_image(png(0, 1))), np.asarray(decode_image(png(2, 3))))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize(("bits", "highest"), [(8, 200), (10, 1023), (12, 4095), (12, 1024), (14, 9000), (16, 16_384)])
def test_grey_of_fewer_bits_in_16_is_as_bright_as_it_was(form, bits, highest):
    levels = np.array([[0, highest // 2, highest]], np.uint16)
    grey = np.asarray(decode_image(encoded(Image.fromarray(levels), form)))[0, :, 0].tolist()
    assert grey == [level >> (bits - 8) for level in levels[0].tolist()]


@given(st.lists(st.integers(0, 65_535), min_size=1, max_size=9))
def test_grey_of_16_bits_keeps_its_order(levels):
    grey = np.asarray(decode_image(encoded(Image.fromarray(np.array([sorted(levels)], np.uint16)))))[0, :, 0].tolist()
    assert grey == sorted(grey)
    assert max(levels) < 64 or grey[-1] >= 32  # never so dark that nothing can be seen


def test_the_transparent_level_of_16_bit_grey_becomes_white():
    levels = Image.fromarray(np.array([[40_000, 40_001]], np.uint16))
    assert np.asarray(decode_image(encoded(levels, transparency=40_001)))[0, :, 0].tolist() == [156, 255]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_an_agreed_white_are_refused(mode):
    with pytest.raises(Undecodable, match=f"mode {mode} has no agreed white"):
        decode_image(encoded(Image.new(mode, (2, 2), 7), "TIFF"))


def test_pixels_are_counted_before_any_is_decoded():
    header_only = picture(size=(300, 200))[:60]
    with pytest.raises(Undecodable, match=r"300 x 200 pixels, allowed 59999") as refused:
        decode_image(header_only, max_pixels=59_999)
    assert refused.value.reason == Reason.TOO_MANY_PIXELS
    assert decode_image(picture(size=(300, 200)), max_pixels=60_000).size == (300, 200)


def test_what_pillow_takes_for_a_bomb_has_too_many_pixels():
    bomb = bytearray(picture())
    bomb[16:24] = struct.pack(">II", 30_000, 30_000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    with pytest.raises(Undecodable) as refused:
        decode_image(bytes(bomb), max_pixels=10**10)
    assert refused.value.reason == Reason.TOO_MANY_PIXELS


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000"])
def test_a_file_that_ends_early_is_refused_not_filled_up(form):
    data = picture(4, (200, 200), form)
    with pytest.raises(Undecodable) as refused:
        decode_image(data[: len(data) * 2 // 3])
    assert refused.value.reason == Reason.UNDECODABLE
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        picture(form="ICO"),
        picture(form="PPM"),
        picture(form="TGA"),
    ],
)
def test_other_formats_are_not_even_tried(data):
    with pytest.raises(Undecodable, match="in no format that is read here"):
        decode_image(data)


def test_the_reason_says_nothing_that_differs_from_run_to_run():
    messages = set()
    for data in [b"no image", bytearray(b"no image")]:
        with pytest.raises(Undecodable) as refused:
            decode_image(bytes(data))
        messages.add(str(refused.value))
    assert len(messages) == 1
    assert "0x" not in messages.pop()


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_damage_ends_in_a_picture_or_in_undecodable_and_in_nothing_else(name, data):
    damaged = bytearray(FILES[name])
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=8)):
        damaged[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Undecodable):
        assert decode_image(bytes(damaged), max_pixels=100_000).mode == "RGB"


def test_the_formats_are_those_of_browsers_and_scanners():
    assert not {"EPS", "WMF", "PSD", "ICO", "PCD", "MPEG", "FITS"}.intersection(FORMATS)


# -- limits ----------------------------------------------------------------------------------------------------------


def repeat_last_scan(data: bytes, times: int) -> bytes:
    """A progressive JPEG whose last scan stands there so many times more."""
    scan = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + scan * times + data[-2:]


def lossless_webp_header(width: int, height: int) -> bytes:
    """34 bytes that say the size of a lossless WebP, and no pixels."""
    body = b"\x2f" + ((width - 1) | (height - 1) << 14).to_bytes(4, "little") + bytes(9)
    return b"RIFF" + struct.pack("<I", 12 + len(body)) + b"WEBPVP8L" + struct.pack("<I", len(body)) + body


def refuse(data: bytes) -> Reason:
    with pytest.raises(Undecodable) as caught:
        decode_image(data)
    return caught.value.reason


@pytest.mark.parametrize("size", [(MAX_SIDE + 1, 1), (1, MAX_SIDE + 1)])
def test_a_side_is_bounded_beside_the_number_of_pixels(size):
    assert refuse(encoded(Image.new("1", size))) is Reason.TOO_MANY_PIXELS
    assert decode_image(encoded(Image.new("1", tuple(min(side, MAX_SIDE) for side in size)))).size != size


@pytest.mark.parametrize("size", [(16384, 16384), (16384, 5500)])
def test_the_size_of_a_webp_is_known_before_room_is_made_for_it(size, monkeypatch):
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("its reader makes room for two canvases"))
    assert refuse(lossless_webp_header(*size)) is Reason.TOO_MANY_PIXELS


@pytest.mark.parametrize(
    "options", [{}, {"lossless": True}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}, {"icc_profile": bytes(200)}]
)
def test_the_size_that_a_webp_says_first_is_that_of_its_picture(options):
    assert read_webp_size(picture(1, (301, 97), "WEBP", **options)) == (301, 97)
    assert read_webp_size(picture(1, (301, 97), "PNG")) is None


def test_scans_of_a_jpeg_are_bounded_before_one_is_decoded(monkeypatch):
    data = picture(1, (64, 48), "JPEG", progressive=True)
    scans = data.count(b"\xff\xda")
    assert decode_image(repeat_last_scan(data, MAX_SCANS - scans)).size == (64, 48)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it was decoded"))
    assert refuse(repeat_last_scan(data, MAX_SCANS - scans + 1)) is Reason.TOO_MANY_SCANS


def test_scans_that_are_none_of_the_picture_do_not_count():
    data, scan = picture(1, (64, 48), "JPEG"), b"\xff\xda\0\x02" * 2000
    thumbnail = b"\xff\xe5" + struct.pack(">H", 2 + len(scan)) + scan
    assert decode_image(data[:2] + thumbnail + data[2:]).size == (64, 48)
    assert decode_image(data + scan).size == (64, 48)


@given(data=st.binary(max_size=400), times=st.integers(0, 150))
def test_any_bytes_have_a_number_of_scans_and_never_more_than_asked_for(data, times):
    found = count_scans(b"\xff\xd8" + data + b"\xff\xda\0\x02" * times, 100)
    assert 0 <= found <= 101


def test_a_decoder_warns_nobody(monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # 40 x 30 are more, and less than twice as many
    assert decode_image(picture()).size == (40, 30)
    assert not recwarn.list


def damage_strip(compression: str) -> bytes:
    """A bilevel TIFF with another strip than it says."""
    noise = np.random.default_rng(0).integers(0, 2, (60, 600), np.uint8) * 255
    data = bytearray(encoded(Image.fromarray(noise).convert("1"), "TIFF", compression=compression))
    offset, size = (Image.open(io.BytesIO(data)).tag_v2[tag][0] for tag in (273, 279))
    data[offset + size // 3 : offset + size // 3 + 40] = b"\xff" * 40
    return bytes(data)


def test_a_decoder_prints_nothing(capfd):
    wrong_count = b"II*\0\x08\0\0\0\x01\0\x15\x01\x04\0\x01\0\0\0\xff\xff\xff\0\0\0\0\0"
    files = (damage_strip("group4"), damage_strip("packbits"), wrong_count)
    for data in files[:2]:
        with contextlib.suppress(OSError):
            Image.open(io.BytesIO(data)).load()
    assert "Decode" in capfd.readouterr().err  # what libtiff has to say of them
    for data in files:
        with contextlib.suppress(Undecodable):
            decode_image(data)
    os.write(2, b"what others say stays")
    assert capfd.readouterr() == ("", "what others say stays")
