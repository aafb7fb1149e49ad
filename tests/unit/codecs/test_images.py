from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from container.codecs.images import (
    DecodeError,
    NotAnImageError,
    TooManyPixelsError,
    decode_annotation,
    decode_image,
    read_header,
)
from tests.pictures import chunk, png, save


def pixels(values: list[list[int]], dtype: type = np.uint8) -> Image.Image:
    return Image.fromarray(np.array(values, dtype))


def test_rgb_png_is_decoded_exactly() -> None:
    image = Image.new("RGB", (3, 2), (10, 20, 30))
    image.putpixel((2, 1), (200, 100, 50))
    decoded = decode_image(save(image))
    assert (decoded.shape, decoded.dtype) == ((2, 3, 3), np.uint8)
    assert decoded[1, 2].tolist() == [200, 100, 50]
    assert decoded[0, 0].tolist() == [10, 20, 30]


def test_jpeg_is_decoded_to_its_color() -> None:
    decoded = decode_image(save(Image.new("RGB", (16, 8), (200, 100, 50)), "JPEG", quality=95))
    assert decoded.shape == (8, 16, 3)
    assert np.abs(decoded.astype(int) - [200, 100, 50]).max() <= 3


def test_grey_is_repeated_in_three_channels() -> None:
    assert decode_image(save(pixels([[0, 128, 255]]))).tolist() == [[[0] * 3, [128] * 3, [255] * 3]]


def test_bilevel_becomes_black_and_white() -> None:
    assert decode_image(save(pixels([[0, 255]]).convert("1"))).tolist() == [[[0] * 3, [255] * 3]]


def test_palette_becomes_its_colors() -> None:
    image = pixels([[0, 1]])
    image.putpalette([1, 2, 3, 250, 120, 60])
    assert decode_image(save(image)).tolist() == [[[1, 2, 3], [250, 120, 60]]]


@pytest.mark.parametrize(("mode", "color", "rgb"), [("RGBA", (9, 8, 7, 0), [9, 8, 7]), ("LA", (77, 3), [77] * 3)])
def test_alpha_is_dropped(mode: str, color: tuple[int, ...], rgb: list[int]) -> None:
    assert decode_image(save(Image.new(mode, (1, 1), color)))[0, 0].tolist() == rgb


def test_cmyk_jpeg_becomes_rgb() -> None:
    cyan = decode_image(save(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", quality=95))
    assert np.abs(cyan.astype(int) - [0, 255, 255]).max() <= 3


def test_16_bit_keeps_its_high_byte() -> None:
    decoded = decode_image(save(pixels([[0, 0x1234, 0xFFFF]], np.uint16)))
    assert decoded.tolist() == [[[0] * 3, [0x12] * 3, [0xFF] * 3]]


def test_exif_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter turn
    assert decode_image(save(Image.new("RGB", (16, 8)), "JPEG", exif=exif)).shape == (8, 16, 3)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_a_truncated_image_is_refused(file_format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    data = save(Image.fromarray(noise), file_format)
    with pytest.raises(DecodeError, match=f"the {file_format} image is corrupt"):
        decode_image(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("data", "what"),
    [(b"", "empty"), (b"hello", r"text \('hello'\)"), (save(Image.new("L", (1, 1)), "GIF"), "a GIF image: convert it")],
)
def test_what_is_no_jpeg_or_png_is_refused(data: bytes, what: str) -> None:
    for decode in (decode_image, decode_annotation, read_header):
        with pytest.raises(NotAnImageError, match=f"neither a JPEG nor a PNG image, but {what}"):
            decode(data)


def test_an_image_of_too_many_pixels_is_refused_by_its_header() -> None:
    data = save(Image.new("L", (40, 30)))
    assert decode_image(data, max_pixels=1200).shape == (30, 40, 3)
    for decode in (decode_image, decode_annotation, read_header):
        with pytest.raises(TooManyPixelsError, match="40×30 pixels, more than 1199"):
            decode(data[:60], max_pixels=1199)


def test_annotation_in_mode_l_holds_its_values() -> None:
    found = decode_annotation(save(pixels([[0, 7, 255]])))
    assert found.pixels is not None and found.palette is None and found.colors is None
    assert (found.pixels.dtype, found.pixels.tolist()) == (np.uint8, [[0, 7, 255]])


def test_annotation_with_a_palette_holds_indices() -> None:
    image = pixels([[0, 2, 255]])
    image.putpalette([value for index in range(256) for value in (index, 255 - index, 9)])
    found = decode_annotation(save(image))
    assert found.pixels is not None and found.pixels.tolist() == [[0, 2, 255]]
    assert found.palette is not None and found.palette.shape == (256, 3) and found.palette[2].tolist() == [2, 253, 9]


@pytest.mark.parametrize(
    ("bits", "row", "ids"), [(1, b"\xa0", [1, 0, 1]), (2, b"\xc4", [3, 0, 1]), (4, b"\xf0\x10", [15, 0, 1])]
)
@pytest.mark.parametrize("color", [0, 3])
def test_few_bits_a_pixel_are_ids_as_they_are(bits: int, row: bytes, ids: list[int], color: int) -> None:
    colors = bytes(range(3 << bits))
    found = decode_annotation(png(3, 1, bits, color, b"\0" + row, chunk(b"PLTE", colors) if color else b""))
    assert found.pixels is not None and (found.pixels.dtype, found.pixels.tolist()) == (np.uint8, [ids])
    if color:
        assert found.palette is not None and found.palette.tobytes() == colors


def test_bilevel_annotation_holds_0_and_1() -> None:
    found = decode_annotation(save(pixels([[0, 255]]).convert("1"))).pixels
    assert found is not None and found.tolist() == [[0, 1]]


def test_16_bit_annotation_keeps_large_values() -> None:
    found = decode_annotation(save(pixels([[0, 300, 65535]], np.uint16))).pixels
    assert found is not None and (found.dtype, found.tolist()) == (np.int32, [[0, 300, 65535]])


@pytest.mark.parametrize(
    ("bits", "color", "row", "rgb"),
    [
        (8, 2, [1, 2, 3], [1, 2, 3]),
        (8, 6, [1, 2, 3, 0], [1, 2, 3]),
        (8, 4, [7, 0], [7, 7, 7]),
        (16, 2, [1, 99, 2, 99, 3, 99], [1, 2, 3]),
        (16, 6, [1, 99, 2, 99, 3, 99, 0, 0], [1, 2, 3]),
        (16, 4, [7, 99, 0, 0], [7, 7, 7]),
    ],
)
def test_a_colored_annotation_gives_its_colors(bits: int, color: int, row: list[int], rgb: list[int]) -> None:
    found = decode_annotation(png(1, 1, bits, color, bytes([0, *row])))
    assert found.pixels is None and found.palette is None and found.colors is not None
    assert (found.colors.dtype, found.colors.tolist()) == (np.uint8, [[rgb]])


def test_a_jpeg_annotation_is_refused() -> None:
    with pytest.raises(DecodeError, match="the annotation is a JPEG"):
        decode_annotation(save(Image.new("L", (8, 8)), "JPEG"))
