from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from container.codecs.images import decode_image, read_header
from tests.pictures import chunk, exif, noise, save, segment, with_segments

PHOTO, DRAWING = save(noise(), "JPEG"), save(noise())


def turned(orientation: int, file_format: str, **options: str) -> bytes:
    if file_format == "JPEG":
        return with_segments(PHOTO, segment(0xE1, b"Exif\0\0" + exif(orientation, **options)))
    return DRAWING[:33] + chunk(b"eXIf", exif(orientation, **options)) + DRAWING[33:]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_only_where_that_is_asked_for(orientation: int, file_format: str) -> None:
    data = turned(orientation, file_format)
    stored = Image.open(io.BytesIO(data))
    shown = np.asarray(ImageOps.exif_transpose(stored))
    header = read_header(data)
    assert (header.width, header.height, header.orientation) == (40, 32, orientation)
    assert (header.shape("ignore"), header.shape("apply")) == ((32, 40), shown.shape[:2])
    assert (decode_image(data) == np.asarray(stored)).all()
    assert (decode_image(data, orientation="apply") == shown).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16", "LA", "RGBA"])
def test_every_mode_is_turned(mode: str) -> None:
    image = noise().convert("I;16" if mode == "I;16" else mode)
    plain = save(image)
    data = plain[:33] + chunk(b"eXIf", exif(6)) + plain[33:]
    assert (decode_image(data, orientation="apply") == np.rot90(decode_image(plain), -1)).all()


@pytest.mark.parametrize(("order", "kind"), [("<", "H"), (">", "H"), ("<", "I"), (">", "I"), (">", "B")])
def test_the_orientation_is_read_in_every_order_of_bytes(order: str, kind: str) -> None:
    for file_format in ("JPEG", "PNG"):
        assert read_header(turned(8, file_format, order=order, kind=kind)).orientation == 8


@pytest.mark.parametrize(
    "tiff", [b"", b"II", b"XX*\0" + bytes(20), exif(0), exif(9), exif(6)[:20], exif(6)[:4] + b"\xff\xff\xff\xff"]
)
def test_what_exif_does_not_say_is_upright(tiff: bytes) -> None:
    data = with_segments(PHOTO, segment(0xE1, b"Exif\0\0" + tiff))
    assert read_header(data).orientation == 1
    assert decode_image(data, orientation="apply").shape == (32, 40, 3)


def test_exif_of_a_png_may_stand_behind_the_data_and_must_be_sound() -> None:
    tag = chunk(b"eXIf", exif(6))
    assert read_header(DRAWING[:-12] + tag + DRAWING[-12:]).orientation == 6
    assert read_header(DRAWING[:33] + chunk(b"eXIf", b"Exif\0\0" + exif(6)) + DRAWING[33:]).orientation == 6
    assert read_header(DRAWING[:33] + tag[:-1] + b"x" + DRAWING[33:]).orientation == 1
    assert read_header(DRAWING[:60]).orientation == 1
