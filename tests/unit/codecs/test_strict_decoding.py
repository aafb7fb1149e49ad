"""No other library makes Pillow lenient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PIL import ImageFile

from container.codecs.images import DecodeError, decode_image
from tests.pictures import noise, png, save

DAMAGED = png(2, 3, 8, 0, b"\0\1\2" + b"\x09\1\2" + b"\0\1\2")  # a filter that there is not


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
