from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from container.codecs.images import DecodeError, TruncatedImageError, decode_annotation, decode_image, read_header
from tests.pictures import IEND, MP4, PNG_SIGNATURE, chunk, noise, opened, png, save

PLAIN = save(noise())
ROWS = bytes(64) * 32
LARGE = 3 * 2**20


def around(before: bytes = b"", after: bytes = b"", behind: bytes = b"") -> bytes:
    """The plain PNG with chunks before and after its image data, and with what follows it."""
    end = PLAIN.index(IEND)
    return PLAIN[:33] + before + PLAIN[33:end] + after + IEND + behind


def spoiled(data: bytes, kind: bytes) -> bytes:
    """The PNG with a wrong checksum in its first chunk of a kind."""
    start = data.index(kind)
    place = start + 4 + struct.unpack(">I", data[start - 4 : start])[0]
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


FRAME = struct.pack(">IIIIIHHBB", 7, 4, 4, 0, 0, 1, 1, 0, 0)
ZEROS = zlib.compress(bytes(LARGE))
AROUND = {
    "a large profile": around(chunk(b"iCCP", b"icc\0\0" + ZEROS)),
    "a profile that is none": around(chunk(b"iCCP", b"icc\0\7nothing")),
    "a large compressed text": around(*2 * [chunk(b"zTXt", b"key\0\0" + ZEROS)]),
    "a large international text": around(*2 * [chunk(b"iTXt", b"key\0\1\0\0\0" + ZEROS)]),
    "more text than Pillow takes": around(chunk(b"tEXt", b"key\0" + bytes(2**20)) * 70),
    "a wrong checksum in a text": spoiled(around(chunk(b"tEXt", b"key\0text")), b"tEXt"),
    "a wrong checksum behind the data": spoiled(around(after=chunk(b"tEXt", b"key\0text")), b"tEXt"),
    "chunks that are too short": around(b"".join(map(chunk, (b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tRNS", b"acTL")))),
    "disordered frames": around(chunk(b"acTL", bytes(8)) + chunk(b"fcTL", FRAME), chunk(b"fdAT", b"\0\0\0\3x")),
    "a private chunk": around(chunk(b"prVt", bytes(99))),
    "a palette behind the data": around(after=chunk(b"PLTE", bytes(3))),
    "a text that is cut behind the data": around(after=chunk(b"tEXt", bytes(99)))[: -len(IEND) - 50],
    "a video behind the picture": around(behind=MP4 + bytes(LARGE)),
    "another picture behind it": around(behind=png(2, 2, 8, 0, b"\0\1\2" * 2)),
    "an end whose checksum is cut": PLAIN[:-4],
}


@pytest.mark.parametrize("what", AROUND)
def test_what_is_around_the_picture_does_not_matter(what: str) -> None:
    assert (decode_image(AROUND[what]) == opened(PLAIN)).all()
    header = read_header(AROUND[what][: 2**16])
    assert (header.format, header.width, header.height, header.mode, header.bits) == ("PNG", 40, 32, "RGB", 8)


def test_a_large_picture_is_read_around_its_chunks() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (700, 600, 3), np.uint8)  # 1.26 MB, which noise stays
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    packed = zlib.compress(rows)
    parts = [chunk(b"IDAT", packed[start : start + 100_000]) for start in range(0, len(packed), 100_000)]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 600, 700, 8, 2, 0, 0, 0))
    text = chunk(b"tEXt", b"key\0" + bytes(5000))
    assert len(packed) > 2**20
    assert (decode_image(PNG_SIGNATURE + header + text + b"".join(parts) + text + IEND) == pixels).all()


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"PLTE"])
def test_a_wrong_checksum_of_the_picture_itself_is_refused(kind: bytes) -> None:
    data = png(2, 1, 8, 3, b"\0\0\1", chunk(b"PLTE", bytes(6)))
    assert decode_image(data).shape == (1, 2, 3)
    with pytest.raises(DecodeError, match=f"^the PNG image is corrupt: the chunk {kind.decode()} has a wrong checksum"):
        decode_image(spoiled(data, kind))


def test_damaged_data_under_a_right_checksum_are_refused() -> None:
    packed = zlib.compress(bytes(99))
    bad = chunk(b"IDAT", packed[:5] + b"\xff\xff\xff" + packed[8:])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 3, 8, 0, 0, 0, 0))
    with pytest.raises(DecodeError, match=r"^the PNG image is corrupt: "):
        decode_image(PNG_SIGNATURE + header + bad + IEND)


def test_a_png_that_lacks_only_its_end_is_used_and_said() -> None:
    said: list[str] = []
    for data in (PLAIN[: -len(IEND)], PLAIN[: -len(IEND)] + bytes(100)):
        assert (decode_image(data, warn=said.append) == opened(PLAIN)).all()
    assert said == ["the PNG image has no end marker. All its pixels exist, and it is used"] * 2
    gray = png(2, 1, 8, 0, b"\0\5\6")
    assert decode_annotation(gray[: -len(IEND)], warn=said.append).pixels is not None
    assert (len(said), said[2]) == (3, said[0])
    decode_image(PLAIN, warn=said.append)
    assert len(said) == 3


def test_a_png_that_is_cut_anywhere_is_refused() -> None:
    whole = save(noise(9, 11))
    for end in range(8, len(whole) - len(IEND)):
        with pytest.raises(TruncatedImageError, match=r"^the PNG image is corrupt: it is truncated "):
            decode_image(whole[:end])


def test_a_png_with_too_few_rows_is_refused() -> None:
    with pytest.raises(TruncatedImageError, match="it is truncated inside the image data"):
        decode_image(png(2, 3, 8, 0, b"\0\1\2" * 2))


DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
MODES = [(bits, color) for color, depths in DEPTHS.items() for bits in depths]
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


@pytest.mark.parametrize(("bits", "color"), MODES)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 2), (9, 11)])
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("value", [0, 0xA5, 0xFF])
def test_every_byte_of_the_rows_is_needed(
    bits: int, color: int, width: int, height: int, interlaced: bool, value: int
) -> None:
    sizes = [(len(range(x, width, right)), len(range(y, height, down))) for x, y, right, down in ADAM7]
    rows = b""
    for columns, lines in sizes if interlaced else [(width, height)]:
        rows += (b"\0" + bytes([value]) * ((columns * bits * CHANNELS[color] + 7) // 8)) * (lines if columns else 0)
    palette = chunk(b"PLTE", bytes(range(3 << bits)) if bits < 8 else bytes(768)) if color == 3 else b""
    whole, cut = (png(width, height, bits, color, part, palette, interlaced=interlaced) for part in (rows, rows[:-1]))
    assert decode_image(whole).shape == (height, width, 3)
    with pytest.raises(TruncatedImageError, match="it is truncated inside the image data"):
        decode_image(cut)


def test_many_rows_of_zeros_are_counted_to_the_last() -> None:
    sizes = [(len(range(x, 1500, right)), len(range(y, 1501, down))) for x, y, right, down in ADAM7]
    rows = bytes(sum(lines * (1 + columns) for columns, lines in sizes))
    assert decode_image(png(1500, 1501, 8, 0, rows, interlaced=True)).shape == (1501, 1500, 3)
    with pytest.raises(TruncatedImageError, match="it is truncated inside the image data"):
        decode_image(png(1500, 1501, 8, 0, rows[:-1], interlaced=True))


def test_more_rows_than_announced_are_left_packed() -> None:
    data = png(2, 1, 8, 0, b"\0\1\2" + bytes(50_000_000))
    assert decode_image(data).tolist() == [[[1] * 3, [2] * 3]]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (PNG_SIGNATURE, "the PNG image is corrupt: it is truncated before the image data"),
        (PNG_SIGNATURE + IEND, "the PNG image is corrupt: it does not start with a header"),
        (
            PNG_SIGNATURE + chunk(b"CgBI", bytes(4)) + PLAIN[8:],
            r"the PNG uses the Apple extension for applications \(CgBI\)",
        ),
        (PNG_SIGNATURE + bytes(20), "the PNG image is corrupt: no chunk starts at byte 8"),
        (PLAIN[:33] + IEND, "the PNG image is corrupt: it has no image data"),
        (PLAIN[:33] + PLAIN[8:], "the PNG image is corrupt: it has two headers"),
        (around(chunk(b"ABCD")), "the PNG image is corrupt: the chunk type ABCD does not exist"),
        (around(chunk(b"tEXt") * 70_000), "the PNG image is corrupt: it has more than 65536 chunks"),
        (png(0, 1, 8, 0, b""), "the PNG image is corrupt: the header specifies 0×1 pixels of 8 bits in color type 0"),
        (png(1, 1, 3, 2, b""), "the PNG image is corrupt: the header specifies 1×1 pixels of 3 bits in color type 2"),
        (png(1, 1, 8, 3, b"\0\0"), "the PNG image is corrupt: it has no palette"),
        (png(1, 1, 8, 3, b"\0\0", chunk(b"PLTE", b"1234")), "the PNG image is corrupt: the palette has 4 bytes"),
        (around(b"\x7f\0\0\0tEXt"), "the PNG image is corrupt: it is truncated inside the chunk tEXt"),
    ],
)
def test_rejected_png_has_the_right_reason(data: bytes, text: str) -> None:
    with pytest.raises(DecodeError, match=f"^{text}"):
        decode_image(data)
