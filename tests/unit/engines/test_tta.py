"""Test-time augmentation: exact means of engines whose answers are known, its costs, and how it is asked for."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from container.engines.protocol import CancellationToken, CancelledError, ImageTooLargeError, Plan
from container.engines.tta import AugmentedViews, AveragedEngine
from container.serving.app import create_app
from tests.unit.serving.test_serving import SETTINGS, FakeEngine, FakePlanner, error_of, loaded, picture

FLIP, SCALES, BOTH = (AugmentedViews.read(way) for way in ("flip", "scales", "flip,scales"))


class Ramp(FakeEngine):
    """Says class 1 by the place: from 0 at the left edge to 1 at the right one, whatever the image."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, ...]] = []

    def probabilities(
        self, image: np.ndarray, plan: Plan | None = None, stop: CancellationToken | None = None
    ) -> np.ndarray:
        if stop:
            stop.check()
        self.shown.append(image.shape[:2])
        height, width = image.shape[:2]
        row = (np.arange(width) + 0.5) / width
        return np.broadcast_to(np.stack([1 - row, row])[:, None], (2, height, width)).astype(np.float32)


class BySize(FakeEngine):
    """Says class 1 by the image's width alone."""

    def probabilities(
        self, image: np.ndarray, plan: Plan | None = None, stop: CancellationToken | None = None
    ) -> np.ndarray:
        value = {30: 0.3, 40: 0.4, 50: 1.0}[image.shape[1]]
        return np.stack([np.full(image.shape[:2], share, np.float32) for share in (1 - value, value)])


def drawn(height: int = 20, width: int = 40) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_mirrored_output_is_mirrored_back() -> None:
    engine = Ramp()
    np.testing.assert_allclose(
        AveragedEngine(engine, FLIP).probabilities(drawn()), 0.5, atol=1e-6
    )  # the ramp and its mirror
    assert engine.shown == [(20, 40)] * 2
    image = drawn()
    assert np.array_equal(AveragedEngine(FakeEngine(), FLIP).mask(image), FakeEngine().mask(image))  # pixel by pixel


def test_all_scales_have_equal_weight() -> None:
    found = AveragedEngine(BySize(), SCALES).probabilities(drawn())
    np.testing.assert_allclose(found[1], (0.3 + 0.4 + 1.0) / 3, rtol=1e-6)
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-6)
    assert found.dtype == np.float32 and found.shape == (2, 20, 40)
    assert BySize().probabilities(drawn())[1].max() < 0.5  # alone it would say class 0
    assert np.all(AveragedEngine(BySize(), SCALES).mask(drawn()) == 1)


def test_resized_output_stays_aligned() -> None:
    engine = Ramp()
    found = AveragedEngine(engine, SCALES).probabilities(drawn())[1]
    assert engine.shown == [(15, 30), (20, 40), (25, 50)]
    row = (np.arange(40) + 0.5) / 40
    np.testing.assert_allclose(found[:, 1:-1], np.broadcast_to(row, (20, 40))[:, 1:-1], atol=1e-5)
    both = Ramp()
    AveragedEngine(both, BOTH).probabilities(drawn())
    assert both.shown == [(15, 30), (15, 30), (20, 40), (20, 40), (25, 50), (25, 50)]


def test_smallest_images_have_all_views() -> None:
    for size in ((1, 1), (1, 7), (2, 1)):
        assert AveragedEngine(Ramp(), BOTH).probabilities(drawn(*size)).shape == (2, *size)
        assert AveragedEngine(FakeEngine(), BOTH).mask(drawn(*size)).shape == size


def test_inference_can_be_cancelled_between_two_views() -> None:
    stop = CancellationToken()

    class Asking(Ramp):
        def probabilities(
            self, image: np.ndarray, plan: Plan | None = None, stop: CancellationToken | None = None
        ) -> np.ndarray:
            found = super().probabilities(image, plan, stop)
            assert stop
            stop.ask()
            return found

    engine = Asking()
    with pytest.raises(CancelledError):
        AveragedEngine(engine, BOTH).probabilities(drawn(), None, stop)
    assert len(engine.shown) == 1


def test_plan_covers_all_views() -> None:
    planner, room = FakePlanner(), 10**9
    assert FLIP.plan(planner, 2, (100, 100), room).pixels == 2 * 100 * 100
    plan = BOTH.plan(planner, 2, (100, 100), room, answer=7)
    assert plan.pixels == 62_500  # 2 · (75² + 100² + 125²): 6.25 times the image
    assert [part.pixels for part in plan.parts] == [75 * 75, 100 * 100, 125 * 125]
    largest = 1000 * 125 * 125 + 4 * 2 * 125 * 125  # the network, and what it says of the largest view
    assert plan.memory == largest + 100 * 100 * (4 * 2 + 16) + 7  # the mean so far; image and mask; the answer
    with pytest.raises(ImageTooLargeError):
        BOTH.plan(planner, 2, (100, 100), plan.memory - 1, answer=7)


class Counting(FakeEngine):
    def __init__(self) -> None:
        self.calls = 0

    def mask(self, image: np.ndarray, plan: Plan | None = None, stop: CancellationToken | None = None) -> np.ndarray:
        self.calls += 1
        return super().mask(image)

    def probabilities(
        self, image: np.ndarray, plan: Plan | None = None, stop: CancellationToken | None = None
    ) -> np.ndarray:
        self.calls += 1
        return FakeEngine().probabilities(image)


def ask(accept: str, body: bytes | None = None, **changes: Any) -> tuple[Any, int]:
    engine = Counting()
    client = create_app(loaded(engine), dataclasses.replace(SETTINGS, **changes)).test_client()
    content_type = "application/json" if body else "image/png"
    answer = client.post("/invocations", data=body or picture(), content_type=content_type, headers={"Accept": accept})
    return answer, engine.calls


@pytest.mark.parametrize(
    ("accept", "calls"),
    [
        ("image/png", 1),
        ("image/png; tta=flip", 2),
        ("image/png; TTA=Scales", 3),
        ("image/png; tta=flip,scales", 6),
        ("image/png;tta=flip , scales;q=0.9, text/html", 6),
        ('image/png; tta="scales,flip"', 6),
        ("text/html, image/png; tta=flip, application/json;q=0.5", 2),
        ("image/png; tta=flip,*/*;q=0.1", 2),
        ("image/png; palette=voc; tta=flip", 2),
        ("*/*; tta=flip,scales", 6),
        ("application/x-npy; tta=flip,scales; dtype=float16", 6),
        ("application/x-recordio-protobuf; top_k=1; tta=flip", 2),
        ("application/json; tta=flip", 2),
    ],
)
def test_every_response_format_supports_tta(accept: str, calls: int) -> None:
    answer, called = ask(accept)
    assert (answer.status_code, called) == (200, calls), answer.text
    media_type = accept.lower().split(";")[0].split(", ")[-1]
    assert answer.mimetype == ("image/png" if media_type == "*/*" else media_type)
    if answer.mimetype == "image/png" and calls < 3:  # other sizes of six pixels may lose one
        assert np.asarray(Image.open(io.BytesIO(answer.data))).tolist() == [[0, 0, 1], [0, 0, 0]]


def test_tta_applies_to_each_image_of_a_request() -> None:
    instance = {"b64": base64.b64encode(picture()).decode()}
    answer, called = ask("application/json; tta=flip", json.dumps({"instances": [instance] * 3}).encode())
    assert (answer.status_code, called) == (200, 6)
    assert len(answer.json["predictions"]) == 3


@pytest.mark.parametrize("value", ["rotate", "flip,rotate", "", "flip,flip", "none"])
def test_unknown_tta_value_is_rejected_with_the_valid_values(value: str) -> None:
    answer, called = ask(f'image/png; tta="{value}"' if not value else f"image/png; tta={value}")
    assert (answer.status_code, called) == (406, 0), answer.text
    assert error_of(answer) == f"Accept: image/png: tta must be flip, scales or flip,scales, not {value!r}"


@pytest.mark.parametrize("header", ["image/png; tta=", "image/png;tta", "image/png; TTA= , */*"])
def test_empty_tta_value_is_rejected(header: str) -> None:
    answer, called = ask(header)
    assert (answer.status_code, called) == (406, 0), answer.text
    assert error_of(answer).startswith("Accept: tta has no value: set it to flip, scales or flip,scales, or omit it")


def test_accept_header_has_at_most_1024_characters() -> None:
    for count, status in ((92, 200), (93, 406)):
        answer, called = ask("image/png" + ", image/png" * count)
        assert (answer.status_code, called) == (status, status == 200)
    assert error_of(answer) == "Accept has 1032 characters, more than 1024: list fewer types"


def test_error_reports_that_the_image_fits_without_tta() -> None:
    body = picture(80, 60)
    engine = Counting()
    settings = dataclasses.replace(SETTINGS, image_memory=1000 * 80 * 60 * 5 // 4)
    client = create_app(loaded(engine), settings).test_client()

    def status(accept: str) -> Any:
        return client.post("/invocations", data=body, content_type="image/png", headers={"Accept": accept})

    assert status("image/png; tta=flip").status_code == 200
    refused = status("image/png; tta=scales")
    assert refused.status_code == 413
    assert "Scale the image down, omit tta, or choose an instance with more memory" in error_of(refused)
