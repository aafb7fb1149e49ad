"""Streams that do not alternate images and annotations get one error that names the fix; correct ones get none."""

from __future__ import annotations

import io
import itertools
import json
import logging
import struct
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image

from container.data.labels.label_maps import LabelMap
from container.data.record_layout import OPENING, Layout, find_layout
from container.errors import ClientError

BLACK_AND_WHITE = {"map": {"0": 0, "1": 255}}
COLORS = {"colors": {"#000000": 0, "#ff8000": 1}}
Maker = Callable[[int], bytes]


def encode(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None) -> bytes:
    target = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(target, kind)
    return target.getvalue()


def noise(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)


def photo(number: int) -> bytes:
    return encode(noise(number), "JPEG")


def png_photo(number: int) -> bytes:
    return encode(noise(number))


def gray_photo(number: int) -> bytes:
    return encode(noise(number)[..., 0])


def dark_photo(number: int) -> bytes:
    """12-bit data of which 8 bits were kept: 16 dark values."""
    return encode(noise(number)[..., 0] // 16)


def scan(number: int) -> bytes:
    y, x = np.mgrid[:48, :64]
    return encode((400 * np.sin(x / 5 + number) * np.cos(y / 7) + 128).clip(0, 255).astype(np.uint8))


def drawing(number: int) -> bytes:
    return encode(np.array([(0, 0, 0), (200, 30, 30), (30, 30, 200)], np.uint8)[ids(number) + ids(number + 1)])


def bilevel(number: int) -> bytes:
    return encode(255 * ids(number + 7), mode="1")


def blank(number: int) -> bytes:
    return encode(np.full((48, 64, 3), 10 * number, np.uint8))


def ids(number: int) -> np.ndarray:
    pixels = np.zeros((48, 64), np.uint8)
    pixels[12 : 24 + number, 16 : 32 + number] = 1
    return pixels


def mask(number: int) -> bytes:
    return encode(ids(number))


def white_mask(number: int) -> bytes:
    return encode(255 * ids(number))


def palette_mask(number: int) -> bytes:
    image = Image.fromarray(ids(number)).convert("P")
    image.putpalette([0, 0, 0, 128, 0, 0])
    target = io.BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


def color_mask(number: int) -> bytes:
    return encode(np.array([(0, 0, 0), (255, 128, 0)], np.uint8)[ids(number)])


def soft_mask(number: int) -> bytes:
    y, x = np.mgrid[:160, :200]
    return encode((255 / (1 + np.exp(np.hypot(y - 80, x - 100) / 2 - 20 - number))).round().astype(np.uint8))


def large_photo(number: int) -> bytes:
    return encode(np.random.default_rng(number).integers(0, 256, (160, 200), np.uint8))


def instances(number: int) -> bytes:
    """One gray value for each cell of an image."""
    return encode(np.kron(np.arange(8 * 12).reshape(8, 12), np.ones((6, 6))).astype(np.uint8))


METADATA = {
    "internal-color-map": {
        "0": {"class-name": "ground", "hex-color": "#000000"},
        "1": {"class-name": "square", "hex-color": "#ff8000"},
    }
}


def metadata(number: int) -> bytes:
    return json.dumps({**METADATA, "creation-date": str(number)}).encode()


def text(number: int) -> bytes:
    return b"picture %d" % number


def number_text(number: int) -> bytes:
    return b"0.%d" % number


def boxes(number: int) -> bytes:
    return json.dumps([{"left": number}]).encode()


def im2rec(number: int) -> bytes:
    return struct.pack("<IfQQ", 0, 1.0, number, 0) + photo(number)


def im2rec_labels(number: int) -> bytes:
    return struct.pack("<IfQQ", 2, 0, number, 0) + struct.pack("<2f", 1, 2) + photo(number)


def stream(*makers: Maker, samples: int = 6) -> list[bytes]:
    return [maker(number) for number in range(samples) for maker in makers][:OPENING]


def layout(records: Sequence[bytes], content: dict[str, object] | None = None, num_classes: int = 2) -> Layout:
    return find_layout(records, "train", LabelMap(content), num_classes)


CORRECT: list[tuple[tuple[Maker, ...], dict[str, object] | None, int]] = [
    *(((image, mask), None, 2) for image in (photo, png_photo, gray_photo, dark_photo, scan, drawing, blank)),
    *(((image, palette_mask), None, 2) for image in (photo, png_photo, gray_photo, drawing)),
    *(((image, white_mask), BLACK_AND_WHITE, 2) for image in (photo, png_photo, gray_photo, scan, drawing)),
    *(((image, color_mask), COLORS, 2) for image in (photo, png_photo, gray_photo, scan, drawing)),
    *(((image, lambda number: encode(128 * ids(number))), None, 2) for image in (photo, gray_photo, scan, drawing)),
    *(((image, color_mask), None, 2) for image in (photo, png_photo, gray_photo, drawing)),
    ((large_photo, soft_mask), BLACK_AND_WHITE, 2),
    ((large_photo, soft_mask), {"scale": 128}, 2),
    ((gray_photo, dark_photo), None, 21),  # values that are classes, though rough
    ((dark_photo, mask), None, 21),
    ((lambda number: encode(np.full((48, 64), 16, np.uint8)), mask), None, 21),  # a video that begins with black
    ((gray_photo, lambda number: gray_photo(number + 50)), None, 256),
    ((photo, instances), None, 96),
]


@pytest.mark.parametrize("samples", [1, 2, 3, 6])
@pytest.mark.parametrize(("makers", "content", "num_classes"), CORRECT)
def test_a_correct_stream_is_accepted_without_a_warning(
    makers: tuple[Maker, ...],
    content: dict[str, object] | None,
    num_classes: int,
    samples: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert layout(stream(*makers, samples=samples), content, num_classes) == Layout(2, None)
    assert not caplog.records


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("image", [photo, png_photo, gray_photo])
@pytest.mark.parametrize("annotation", [mask, palette_mask, color_mask])
def test_metadata_is_found_wherever_it_is(image: Maker, annotation: Maker, place: int) -> None:
    makers = [image, annotation]
    makers.insert(place, metadata)
    assert layout(stream(*makers)) == Layout(3, place)
    assert layout(stream(*makers, samples=1)) == Layout(3, place)


@pytest.mark.parametrize("bad", [b"no image", b"", b"GIF89a", b"{}", b"\x89PNG\r\n\x1a\nbroken"])
@pytest.mark.parametrize("place", range(12))
@pytest.mark.parametrize("makers", [(photo, mask), (gray_photo, mask), (png_photo, mask, metadata)])
def test_one_bad_record_does_not_change_the_layout(makers: tuple[Maker, ...], place: int, bad: bytes) -> None:
    records = stream(*makers)
    records[place] = bad
    assert layout(records) == Layout(len(makers), 2 if len(makers) == 3 else None)


def test_a_jpeg_among_good_annotations_is_a_bad_record(caplog: pytest.LogCaptureFixture) -> None:
    records = stream(photo, mask)
    records[1] = photo(99)
    assert layout(records) == Layout()


NO_ANNOTATIONS = "If the stream is an S3 prefix of images, it has no annotations"
EXCHANGED = "The image and the annotation are exchanged"
NO_IMAGES = "If the stream is an S3 prefix of annotations, or AttributeNames lists annotations only, it has no images"
MANIFEST = "the stream is the manifest itself"
THREE = "each sample of the stream has 3 records"
FOUR = "each sample of the stream has 4 records"

WRONG: list[tuple[tuple[Maker, ...], dict[str, object] | None, str]] = [
    *(((image,), None, NO_ANNOTATIONS) for image in (photo, png_photo, gray_photo, scan)),
    *(((image,), BLACK_AND_WHITE, NO_ANNOTATIONS) for image in (photo, png_photo, gray_photo, scan)),
    *(((image,), COLORS, NO_ANNOTATIONS) for image in (photo, png_photo, gray_photo)),
    *(((image,), {"scale": 255}, NO_ANNOTATIONS) for image in (photo, png_photo, gray_photo)),
    *(((mask, image), None, EXCHANGED) for image in (photo, png_photo, gray_photo, scan)),
    *(((palette_mask, image), None, EXCHANGED) for image in (photo, png_photo, gray_photo, scan)),
    *(((white_mask, image), BLACK_AND_WHITE, EXCHANGED) for image in (photo, png_photo, gray_photo, scan)),
    *(((white_mask, image), {"scale": 255}, EXCHANGED) for image in (photo, png_photo, gray_photo, scan)),
    *(((color_mask, image), COLORS, EXCHANGED) for image in (photo, png_photo, gray_photo)),
    *(((color_mask, image), None, EXCHANGED) for image in (photo, png_photo, gray_photo)),
    *(((mask, metadata, image), None, EXCHANGED) for image in (photo, png_photo, gray_photo)),
    ((mask,), None, NO_IMAGES),
    ((palette_mask,), None, NO_IMAGES),
    ((color_mask,), COLORS, NO_IMAGES),
    ((color_mask,), None, NO_IMAGES),
    ((lambda number: encode(128 * ids(number)),), None, NO_IMAGES),
    ((lambda number: mask(1),), None, NO_IMAGES),
    ((lambda number: white_mask(1),), BLACK_AND_WHITE, NO_IMAGES),
    ((photo, mask, photo), None, THREE),
    *(((image, mask, mask), None, THREE) for image in (photo, png_photo, gray_photo)),
    *(((image, mask, image), None, THREE) for image in (photo, png_photo, gray_photo)),
    *(((photo, mask, third), None, THREE) for third in (text, number_text, boxes)),
    ((text, photo, mask), None, THREE),
    ((photo, text, mask), None, THREE),
    ((photo, metadata, metadata), None, THREE),
    ((photo, mask, metadata, metadata), None, FOUR),
    ((photo, mask, text, text), None, FOUR),
    ((photo, mask, mask, mask), None, FOUR),
    ((photo, text), None, "each sample of the stream has 2 records"),
    ((photo, metadata), None, "each sample of the stream has 2 records"),
    ((metadata,), None, MANIFEST),
    ((text,), None, "the records are not images, but text"),
    ((im2rec,), None, "the records are not images, but records of the MXNet tool im2rec"),
    ((im2rec_labels,), None, "the records are not images, but records of the MXNet tool im2rec"),
    ((lambda number: b"\n#\xd7\xce" + bytes(8),), None, "the records are not images, but a RecordIO record"),
]


@pytest.mark.parametrize(("makers", "content", "reason"), WRONG)
def test_a_wrong_stream_gets_one_short_error_that_names_the_fix(
    makers: tuple[Maker, ...], content: dict[str, object] | None, reason: str
) -> None:
    with pytest.raises(ClientError) as caught:
        layout(stream(*makers, samples=12), content)
    assert str(caught.value).startswith("channel train: ")
    assert reason in str(caught.value)
    assert "AttributeNames" in str(caught.value)
    assert "colors" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_manifest_file_as_one_record_is_named() -> None:
    lines = "\n".join(json.dumps({"source-ref": f"s3://b/{number}.jpg"}) for number in range(3))
    with pytest.raises(ClientError, match=MANIFEST):
        layout([lines.encode()])


def test_two_prefixes_in_one_stream_begin_with_images_alone() -> None:
    with pytest.raises(ClientError, match=NO_ANNOTATIONS):
        layout([*map(photo, range(20)), *map(mask, range(20))][:OPENING])
    with pytest.raises(ClientError, match=NO_IMAGES):
        layout([*map(mask, range(20)), *map(photo, range(20))][:OPENING])


@pytest.mark.parametrize("others", [(photo,), (photo, photo), (gray_photo, photo), (drawing, photo, photo)])
def test_images_of_several_kinds_are_a_correct_stream(others: tuple[Maker, ...]) -> None:
    images = itertools.cycle([png_photo, *others])
    assert layout([record for number in range(6) for record in (next(images)(number), mask(number))]) == Layout()


def test_images_and_annotations_in_alphabetical_order_are_a_correct_stream() -> None:
    assert layout([record for number in range(6) for record in (photo(number), mask(number))]) == Layout()


@pytest.mark.parametrize(
    ("makers", "values"), [((white_mask,), "0, 255"), ((bilevel, white_mask), "0, 1"), ((white_mask, mask), "0, 255")]
)
def test_scans_that_could_be_annotations_get_a_warning_only(
    makers: tuple[Maker, ...], values: str, caplog: pytest.LogCaptureFixture
) -> None:
    content: dict[str, object] = {"map": {"0": 0, "1": [1, 255]}}
    with caplog.at_level(logging.WARNING):
        assert layout(stream(*makers, samples=12), content) == Layout()
    (record,) = caplog.records
    message = record.getMessage()
    assert f"the first images have only the pixel values {values}, which the label map names, too" in message


def dark_gradient(number: int) -> bytes:
    """A smooth image of 12 bits whose high bytes were kept, as of an MRI scanner."""
    y, x = np.mgrid[:256, :256]
    return encode((15 * np.exp(-((x - 128 - 5 * number) ** 2 + (y - 128) ** 2) / 8000)).round().astype(np.uint8))


def dark_gradient_16(number: int) -> bytes:
    return encode(np.asarray(Image.open(io.BytesIO(dark_gradient(number)))).astype(np.uint16))


def page(number: int) -> bytes:
    """A binarized page of text, black and white in RGB."""
    y, x = np.mgrid[:256, :512]
    ink = (x // 4 + y // 9 + number) % 5 < 2
    return encode(np.repeat(255 * ink[..., None].astype(np.uint8), 3, axis=2))


def page_mask(number: int) -> bytes:
    pixels = np.zeros((256, 512, 3), np.uint8)
    pixels[40 : 90 + number] = 255
    return encode(pixels)


@pytest.mark.parametrize(
    ("image", "annotation", "content", "num_classes"),
    [
        (dark_gradient, mask, {"scale": 1}, 21),
        (dark_gradient_16, mask, {"scale": 1}, 21),
        (page, page_mask, {"colors": {"#000000": 0, "#ffffff": 1}}, 2),
    ],
)
def test_dark_images_and_pages_of_text_are_not_refused(
    image: Maker, annotation: Maker, content: dict[str, object], num_classes: int
) -> None:
    assert find_layout(stream(image, annotation, samples=6), "train", LabelMap(content), num_classes) == Layout()


def test_black_and_white_annotations_in_color_are_not_images() -> None:
    other = [*stream(page_mask, page_mask, samples=6)[1:], page_mask(99)]
    with pytest.raises(ClientError, match=NO_IMAGES):
        layout(other, {"colors": {"#000000": 0, "#ffffff": 1}})


def test_a_mask_with_many_instances_is_left_to_the_audit() -> None:
    for image, annotation in itertools.product((photo, gray_photo), (instances,)):
        assert layout(stream(image, annotation)) == Layout()
