"""Whole pictures: what cannot be used is named and passed over; nothing waits for what is no longer wanted."""

from __future__ import annotations

import dataclasses
import io
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from container.data.full_images import LabeledImage, SkippedImage, read_full_images
from container.data.labels.label_maps import LabelMap
from container.data.sample_decoding import decode_sample
from container.data.samples import Sample
from container.errors import JobCancelledError, PlatformError


def png(height: int, width: int, mode: str = "L") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height), 1 if mode == "L" else (9, 9, 9)).save(buffer, "PNG")
    return buffer.getvalue()


@dataclasses.dataclass
class Fake:
    name: str
    image: bytes = dataclasses.field(default_factory=lambda: png(6, 8, "RGB"))
    annotation: bytes = dataclasses.field(default_factory=lambda: png(6, 8))
    error: Exception | None = None
    color_map: None = None
    reads: int = 0

    def read(self) -> tuple[bytes, bytes]:
        self.reads += 1
        if self.error:
            raise self.error
        return self.image, self.annotation


def decode(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    return decode_sample(sample, LabelMap(), 3)[:2]


def admit_all(pixels: int) -> str | None:
    return None


def test_unusable_images_are_skipped_and_the_others_keep_their_order() -> None:
    samples = [
        Fake("first"),
        Fake("lost", error=PlatformError("/data/lost.jpg could not be read: Input/output error")),
        Fake("damaged", image=png(6, 8, "RGB")[:45]),
        Fake("text", image=b"no image"),
        Fake("other size", annotation=png(6, 9)),
        Fake("last"),
    ]
    found = list(read_full_images(samples, decode, admit_all, 2, 2, threading.Event()))
    assert [each.name for each in found] == [sample.name for sample in samples]
    assert [type(each) for each in found] == [
        LabeledImage,
        SkippedImage,
        SkippedImage,
        SkippedImage,
        SkippedImage,
        LabeledImage,
    ]
    reasons = [each.reason for each in found if isinstance(each, SkippedImage)]
    assert reasons[0] == "/data/lost.jpg could not be read: Input/output error"
    assert reasons[1].startswith("damaged: the PNG image is corrupt")
    assert reasons[2].startswith("this is neither a JPEG nor a PNG image, but text ('no image')")
    assert reasons[3].startswith("annotation of other size: the image has 8×6 pixels, but the annotation has 9×6")
    assert all(sample.reads == 1 for sample in samples)
    assert isinstance(found[0], LabeledImage)
    assert found[0].image.shape == (6, 8, 3) and (found[0].image == 9).all() and (found[0].labels == 1).all()


def test_an_image_that_is_not_admitted_is_not_decoded() -> None:
    samples = [Fake("large", image=png(70, 90, "RGB")[:60]), Fake("small")]  # the large one's header alone is there

    def admit(pixels: int) -> str | None:
        return "are more than fit" if pixels > 100 else None

    large, small = read_full_images(samples, decode, admit, 0, 1, threading.Event())
    assert large == SkippedImage("large", "90×70 pixels are more than fit", too_large=True)
    assert isinstance(small, LabeledImage)


def test_no_more_is_read_ahead_than_was_asked_for() -> None:
    samples = [Fake(str(number)) for number in range(9)]
    for ahead in (0, 3):
        taken = 0

        def read() -> Iterator[Fake]:
            nonlocal taken
            for sample in samples:
                taken += 1
                yield sample

        source = read_full_images(read(), decode, admit_all, ahead, 2, threading.Event())
        next(source)
        assert taken == 1 + ahead
        source.close()  # type: ignore[attr-defined]


def test_a_read_that_hangs_is_not_waited_for() -> None:
    until, released = threading.Event(), threading.Event()

    class Hanging(Fake):
        def read(self) -> tuple[bytes, bytes]:
            released.wait(60)
            return super().read()

    threading.Timer(0.1, until.set).start()
    start = time.monotonic()
    with pytest.raises(JobCancelledError):
        next(read_full_images([Hanging("hangs")], decode, admit_all, 0, 1, until))
    assert time.monotonic() - start < 2
    released.set()
