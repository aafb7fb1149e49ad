from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from container.codecs.images import DecodeError, TruncatedImageError, decode_image, decode_reduced, read_header
from tests.pictures import EOI, MP4, exif, noise, opened, save, segment, with_segments

PLAIN = save(noise(), "JPEG", quality=90)
THUMBNAIL = save(noise(16, 16), "JPEG", progressive=True)
PROGRESSIVE = save(noise(), "JPEG", quality=90, progressive=True)
SCAN = b"\xff\xda\0\x0c\x03"
LARGE = 2 * 2**20


def scans(jpeg: bytes) -> list[int]:
    """Where the scans of a JPEG begin, which has no such bytes elsewhere."""
    found = [place for place in range(len(jpeg)) if jpeg[place : place + 2] == b"\xff\xda"]
    assert found
    return found


AROUND = {
    "a video of a motion photo": PLAIN + MP4 + np.random.default_rng(0).bytes(LARGE),
    "many scans behind the picture": PLAIN + SCAN * 1000,
    "a second picture": with_segments(PLAIN, segment(0xE2, b"MPF\0II*\0" + bytes(60))) + PROGRESSIVE,
    "a thumbnail of many scans": with_segments(PLAIN, segment(0xE1, b"Exif\0\0" + exif(1, thumbnail=THUMBNAIL * 20))),
    "a profile in many parts": with_segments(
        PLAIN, *(segment(0xE2, b"ICC_PROFILE\0" + bytes([part, 60]) + bytes(65000)) for part in range(1, 61))
    ),
    "a profile of which a part is missing": with_segments(PLAIN, segment(0xE2, b"ICC_PROFILE\0\2\3abc")),
    "Photoshop data that end early": with_segments(PLAIN, segment(0xED, b"Photoshop 3.0\x008BIM\x03")),
    "EXIF data of noise": with_segments(PLAIN, segment(0xE1, b"Exif\0\0" + np.random.default_rng(0).bytes(999))),
    "EXIF data that lead astray": with_segments(PLAIN, segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\x7f")),
    "a comment": with_segments(PLAIN, segment(0xFE, bytes(65533))),
    "a short JFIF segment": with_segments(PLAIN, segment(0xE0, b"JFIF")),
    "fill bytes": PLAIN[:2] + b"\xff" * LARGE + PLAIN[2:-2] + b"\xff" * LARGE + EOI,
    "junk between segments": PLAIN[:20] + b"\0\1\2" + PLAIN[20:],
}


@pytest.mark.parametrize("what", AROUND)
def test_what_is_around_the_picture_does_not_matter(what: str) -> None:
    assert (decode_image(AROUND[what]) == opened(PLAIN)).all()
    header = read_header(AROUND[what])
    assert (header.format, header.width, header.height, header.mode, header.bits) == ("JPEG", 40, 32, "RGB", 8)


def test_adobes_segment_says_which_colors_the_samples_are() -> None:
    adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0\0")  # no transform: the samples are red, green and blue
    data = with_segments(PLAIN[:2] + PLAIN[20:], adobe)  # without JFIF, which says the opposite
    assert PLAIN[2:4] == b"\xff\xe0" and (opened(data) != opened(PLAIN)).any()
    assert (decode_image(data) == opened(data)).all()


def test_restarts_and_progressive_scans_belong_to_the_picture() -> None:
    for options in ({"restart_marker_blocks": 1}, {"progressive": True}, {"progressive": True, "optimize": True}):
        data = save(noise(), "JPEG", **options)
        assert (decode_image(data + b"behind") == opened(data)).all()


def test_too_many_scans_are_refused_in_the_picture_only() -> None:
    first = scans(PROGRESSIVE)[0]
    many = PROGRESSIVE[:first] + PROGRESSIVE[first:-2] * 11 + EOI  # ten scans each
    assert len(scans(PROGRESSIVE)) == 10
    with pytest.raises(DecodeError, match=r"the JPEG has more than 100 scans\. Save it"):
        decode_image(many)
    assert (decode_image(PROGRESSIVE + many) == opened(PROGRESSIVE)).all()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}, {"optimize": True}])
@pytest.mark.parametrize("padding", [b"", b"\xff", bytes(5000), b"\xff" * 5000])
def test_a_jpeg_that_lacks_only_its_end_mark_is_used_and_said(options: dict[str, object], padding: bytes) -> None:
    whole = save(noise(), "JPEG", quality=95, **options)
    said: list[str] = []
    assert (decode_image(whole[:-2] + padding, warn=said.append) == opened(whole)).all()
    assert said == ["the JPEG image has no end marker. All its pixels exist, and it is used"]
    decode_image(whole, warn=said.append)
    assert len(said) == 1


def test_a_reduced_jpeg_is_the_same_with_and_without_its_end_mark() -> None:
    whole = save(noise(48, 64), "JPEG")
    header, said = read_header(whole), list[str]()
    reduced = decode_reduced(whole, header, warn=said.append)
    assert (reduced.shape, said) == ((6, 8), [])
    assert (decode_reduced(whole[:-2], header, warn=said.append) == reduced).all() and len(said) == 1
    with pytest.raises(TruncatedImageError, match="inside the image data"):
        decode_reduced(whole[:-9], header)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}, {"optimize": True}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_that_is_cut_anywhere_is_refused(options: dict[str, object], mode: str) -> None:
    whole = save(noise(9, 17).convert(mode), "JPEG", quality=95, **options)
    for end in range(3, len(whole) - 2):
        with pytest.raises(TruncatedImageError, match=r"^the JPEG image is corrupt: it is truncated "):
            decode_image(whole[:end])


def test_a_cut_jpeg_that_is_padded_is_refused() -> None:
    with pytest.raises(TruncatedImageError, match="it is truncated inside the image data"):
        decode_image(PLAIN[: len(PLAIN) // 2] + bytes(10_000))


def test_a_progressive_jpeg_without_its_last_scans_is_refused() -> None:
    for start in scans(PROGRESSIVE)[1:]:
        with pytest.raises(TruncatedImageError, match="it is truncated"):
            decode_image(PROGRESSIVE[:start])


def frame(marker: int = 0xC0, bits: int = 8, height: int = 32, width: int = 40, components: int = 3) -> bytes:
    return segment(marker, struct.pack(">BHHB", bits, height, width, components) + b"\1\x11\0" * components)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xff\xd8\xff", "the JPEG image is corrupt: it is truncated before the image data"),
        (
            b"\xff\xd8" + frame(0xC3) + SCAN,
            r"the JPEG uses an unsupported encoding \(SOF3\). Save it as a baseline JPEG or",
        ),
        (b"\xff\xd8" + frame(bits=12) + SCAN, "the JPEG has 12 bits per sample. Save it with 8 bits, or as PNG"),
        (b"\xff\xd8" + frame(components=2) + SCAN, "the JPEG has 2 channels. Save it with 1, 3, or 4 channels"),
        (b"\xff\xd8" + frame(height=0) + SCAN, "the JPEG image is corrupt: the header specifies 40×0 pixels"),
        (b"\xff\xd8" + frame() + frame(width=9999), "the JPEG image is corrupt: it has two headers"),
        (b"\xff\xd8" + segment(0xC0, b"\x08\0"), "the JPEG image is corrupt: the header is too short"),
        (b"\xff\xd8" + SCAN + bytes(20) + EOI, "the JPEG image is corrupt: the image data has no header"),
        (b"\xff\xd8" + frame() + EOI, "the JPEG image is corrupt: it is truncated before the image data"),
        (b"\xff\xd8\xff\x02" + frame(), "the JPEG image is corrupt: the marker FF02 is not allowed"),
        (b"\xff\xd8" + segment(0xFE) * 20_000, "the JPEG image is corrupt: it has more than 16384 segments"),
        (PLAIN[:2] + frame() + PLAIN[2:], "the JPEG image is corrupt: it has two headers"),
    ],
)
def test_rejected_jpeg_has_the_right_reason(data: bytes, text: str) -> None:
    with pytest.raises(DecodeError, match=f"^{text}"):
        decode_image(data)


def test_a_header_is_read_from_the_first_bytes() -> None:
    data = with_segments(PLAIN, segment(0xE1, b"Exif\0\0" + exif(6)), segment(0xE2, bytes(60_000)))
    header = read_header(data[: 2**16])
    assert (header.width, header.height, header.orientation) == (40, 32, 6)
    assert (header.shape(), header.shape("apply")) == ((32, 40), (40, 32))
    with pytest.raises(TruncatedImageError, match="it is truncated before the image data"):
        read_header(data[: 2**15])


def test_header_distinguishes_gray_and_cmyk() -> None:
    for mode in ("L", "CMYK"):
        assert read_header(save(Image.new(mode, (8, 8)), "JPEG")).mode == mode
