"""No other library makes Pillow lenient."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable

import numpy as np
import pytest
from PIL import ImageFile

from container.codecs.images import DecodeError, decode_image
from container.codecs.strict_decoding import open_buffers
from tests.pictures import noise, png, save

DAMAGED = png(2, 3, 8, 0, b"\0\1\2" + b"\x09\1\2" + b"\0\1\2")  # a filter that there is not
SOME = np.random.default_rng(0).bytes(2**21)


def test_no_library_makes_damaged_images_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as GluonCV does
    with pytest.raises(DecodeError, match="unrecognized data stream"):
        decode_image(DAMAGED)


@pytest.mark.parametrize("meanwhile", [lambda: None, lambda: decode_image(save(noise()))])
def test_no_library_makes_damaged_images_pass_while_they_are_decoded(
    monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]
) -> None:
    """Another thread imports GluonCV in the midst, and a third one decodes with success."""
    load, calls = ImageFile.ImageFile.load, []

    def load_beside_an_import(image: ImageFile.ImageFile) -> object:
        calls.append(image)
        if len(calls) > 1:
            return load(image)
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        found = load(image)
        meanwhile()
        return found

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    monkeypatch.setattr(ImageFile.ImageFile, "load", load_beside_an_import)
    with pytest.raises(DecodeError, match="unrecognized data stream"):
        decode_image(DAMAGED)


@pytest.mark.parametrize("size", [0, 100, 2**21])
def test_buffers_are_read_as_one_file(size: int) -> None:
    data = SOME[:size]
    cuts = [0, 0, 1, 9, size // 3, size // 3, size - 1, size] if size else [0, 0]
    file = open_buffers([memoryview(data)[start:end] for start, end in itertools.pairwise(cuts)])
    assert file.read(16) == data[:16] and file.tell() == len(data[:16])
    assert file.read() == data[16:] and file.read() == b""
    for place in (0, 5, size // 3 - 1 if size else 0, size + 10):
        assert file.seek(place) == place and file.read(70_000) == data[place : place + 70_000]
    assert file.seek(0, io.SEEK_END) == size
