from __future__ import annotations

import base64
import dataclasses
import io
import json
import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from container.artifact.classes import ClassEntry
from container.engines.protocol import CancellationToken, Engine, ImageTooLargeError, Plan
from container.geometry.windows import Windows
from container.serving.app import create_app
from container.serving.memory_budget import MemoryBudget, MemoryEstimate, Reservation
from container.serving.models import Model, create_model
from container.serving.requests.deadline import RequestDeadline
from container.serving.requests.errors import ServiceUnavailableError
from container.serving.settings import ServeSettings
from tests.conftest import wait_until


class FakePlanner:
    """Takes 1000 bytes for each pixel, besides the answer."""

    windows: Windows | None = None

    def plan(self, height: int, width: int, room: int, answer: int = 0, needs: str = "mask") -> Plan:
        memory = 1000 * height * width + answer
        if memory > room:
            raise ImageTooLargeError(f"{width}×{height} pixels need {memory} bytes; an image may take {room}")
        return Plan(memory, height * width)


class FakeEngine:
    """Says class 1 wherever red is above 127, with 75 %."""

    num_classes = 2
    precision = "float32"
    memory = standing = 0
    planner = FakePlanner()

    def mask(self, image: np.ndarray, plan: Plan | None = None, stop: CancellationToken | None = None) -> np.ndarray:
        return (image[:, :, 0] > 127).astype(np.uint8)

    def probabilities(
        self, image: np.ndarray, plan: Plan | None = None, stop: CancellationToken | None = None
    ) -> np.ndarray:
        return np.stack([np.where(self.mask(image) == label, 0.75, 0.25) for label in (0, 1)]).astype(np.float32)

    def warm(self) -> None:
        pass

    def release(self) -> None:
        pass


SETTINGS = ServeSettings(
    model_dir=Path("unused"), port=8080, workers=1, timeout=60, log_level="info", max_body=100_000, max_pixels=10_000
)


def loaded(engine: Engine, classes: dict[int, ClassEntry] | None = None) -> Future[Model]:
    model: Future[Model] = Future()
    model.set_result(create_model(engine, classes or {}))
    return model


@pytest.fixture
def client() -> FlaskClient:
    return create_app(loaded(FakeEngine()), SETTINGS).test_client()


def picture(width: int = 3, height: int = 2, file_format: str = "PNG") -> bytes:
    image = Image.new("RGB", (width, height))
    image.putpixel((width - 1, 0), (255, 0, 0))
    target = io.BytesIO()
    image.save(target, file_format)
    return target.getvalue()


def invoke(
    client: FlaskClient, body: bytes | None = None, content_type: str | None = "image/png", accept: str | None = None
) -> TestResponse:
    headers = {} if accept is None else {"Accept": accept}
    data = picture() if body is None else body
    return client.post("/invocations", data=data, content_type=content_type, headers=headers, buffered=True)


def error_of(response: TestResponse) -> str:
    """The message of an error, which must be one line of JSON."""
    assert response.mimetype == "application/json"
    assert response.text.count("\n") == 1
    assert response.text.endswith("\n")
    content = json.loads(response.text)
    assert list(content) == ["error"]
    return str(content["error"])


def test_requests_before_the_model_is_loaded_are_503() -> None:
    model: Future[Model] = Future()
    client = create_app(model, SETTINGS).test_client()
    for response in (client.get("/ping"), invoke(client)):
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert error_of(response) == "The server is loading the model. Try again."
    model.set_result(create_model(FakeEngine(), {}))
    assert [client.get("/ping").status_code, invoke(client).status_code] == [200, 200]


def test_ping_is_200_without_a_body(client: FlaskClient) -> None:
    response = client.get("/ping")
    assert (response.status_code, response.data) == (200, b"")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"max_body": 6 * 2**20}, {"MaxConcurrentTransforms": 2, "MaxPayloadInMB": 6}),
        ({"max_body": 500 * 2**20}, {"MaxConcurrentTransforms": 2, "MaxPayloadInMB": 50}),
        ({"max_body": 100 * 2**20, "workers": 4}, {"MaxConcurrentTransforms": 8, "MaxPayloadInMB": 12}),
    ],
)
def test_execution_parameters_follow_the_settings(changes: dict[str, int], expected: dict[str, int]) -> None:
    client = create_app(loaded(FakeEngine()), dataclasses.replace(SETTINGS, **changes)).test_client()
    assert client.get("/execution-parameters").json == {**expected, "BatchStrategy": "SINGLE_RECORD"}


def test_answer_is_a_mask_of_the_images_size(client: FlaskClient) -> None:
    response = invoke(client)
    assert (response.status_code, response.mimetype) == (200, "image/png")
    image = Image.open(io.BytesIO(response.data))
    assert (image.mode, image.size, image.tobytes()) == ("L", (3, 2), bytes([0, 0, 1, 0, 0, 0]))


@pytest.mark.parametrize(
    "content_type",
    [
        "image/png",
        "image/jpeg",
        "image/jpg",
        "image/pjpeg",
        "application/x-image",
        "IMAGE/JPEG; q=1",
        "Image/Png;charset=x",
        "application/octet-stream",
        "binary/octet-stream",
        "application/x-www-form-urlencoded",
        "*/*",
        "image/*",
        "Image/* ; q=0.8",
        "image/x-png",
        "image/x-jpeg",
        "image/x-jpg",
        "image/jfif",
        "",
        None,
    ],
)
@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_images_are_accepted_with_every_content_type(
    client: FlaskClient, content_type: str | None, file_format: str
) -> None:
    assert invoke(client, picture(file_format=file_format), content_type).status_code == 200


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "image/png"),
        ("", "image/png"),
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("application/x-npy", "application/x-npy"),
        ("application/x-protobuf", "application/x-protobuf"),
        ("application/x-recordio-protobuf", "application/x-recordio-protobuf"),
        ("Application/JSON; charset=utf-8", "application/json"),
        ("IMAGE/PNG", "image/png"),
        ("text/html, application/json", "application/json"),
        ("text/html, */*;q=0.1", "image/png"),
        ("image/png;q=0.3, application/json;q=0.8", "application/json"),
        ("application/json;q=0.3, application/x-npy;q=0.3, image/png;q=0.8", "image/png"),
        ("*/*, application/json", "application/json"),
        ("application/json, image/png", "application/json"),
        ("image/png, application/json", "image/png"),
        ("image/png;q=0.1, */*", "application/x-protobuf"),
        ("image/png;q=0, */*;q=0.5, application/json;q=0.2", "application/x-protobuf"),
        ("image/*;q=0, application/json;q=0.1", "application/json"),
        # of two ranges of one type the better liked counts, in whichever order and with whatever parameters
        ("image/png;palette=voc;q=0.2, application/json;q=0.5, image/png;q=0.9", "image/png"),
        ("image/png;q=0.9, application/json;q=0.5, image/png;palette=voc;q=0.2", "image/png"),
        ("image/png;palette=voc;q=0.9, application/json;q=0.5, image/png;q=0.2", "image/png"),
        ("image/png;palette=voc;q=0, application/json;q=0.5, image/png;q=0.9", "image/png"),
        ("image/png;q=0, application/json;q=0.5, image/png;palette=voc;q=0.9", "image/png"),
        ("application/json;q=0.5, image/png;q=0.1, image/png;q=0.9", "image/png"),
        ("application/json;q=0.5, image/png;q=0.9, image/png;q=0.1", "image/png"),
        ("image/png;q=0.1, application/json;q=1.", "application/json"),
        ("image/png;q=0., application/json;q=0.001", "application/json"),
        ("image/png; Q=0.1, application/json ; q=1.000", "application/json"),
        ('image/png;q="0.1", application/json', "application/json"),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", "image/png"),  # what Java's HttpURLConnection sends
        ("image/png;q=.3, application/json;q=.8", "application/json"),
        ("application/vnd.x+json;profile=http://x/y, application/json ; ; charset=utf-8 ;", "application/json"),
        ('text/html, application/json; note="a;b, \\"c"', "application/json"),
    ],
)
def test_accept_decides_the_media_type(client: FlaskClient, accept: str | None, media_type: str) -> None:
    response = invoke(client, accept=accept)
    assert (response.status_code, response.mimetype) == (200, media_type)


def test_of_two_ranges_of_one_type_the_better_liked_ones_parameters_are_used(client: FlaskClient) -> None:
    for accept, mode in [
        ("image/png;palette=voc;q=0.2, image/png;q=0.9", "L"),
        ("image/png;palette=voc;q=0.9, image/png;q=0.2", "P"),
        ("image/png, image/png;palette=voc", "P"),  # as the more specific one
    ]:
        assert Image.open(io.BytesIO(invoke(client, accept=accept).data)).mode == mode


@pytest.mark.parametrize("weight", ["abc", "", "1.5", "2", "-1", "1.01", "nan", "inf", ".", "50%"])
@pytest.mark.parametrize("accept", ["application/json;q={}", "image/png, application/json; q={}", "*/*;Q={}"])
def test_invalid_weight_in_accept_is_406(client: FlaskClient, accept: str, weight: str) -> None:
    response = invoke(client, accept=accept.format(weight))
    assert response.status_code == 406
    assert error_of(response) == (f"Accept: q={weight} is not a weight; set q to a value from 0 to 1, such as q=0.5")


@pytest.mark.parametrize("name", ["top_k", "dtype", "palette", "tta"])
@pytest.mark.parametrize("parameter", ["{}", "{}=", "{}=[1]", "{} = 1", "{}:1", "{}=1/2", '{}="1', "{}=@", "q=1;{}=(1"])
@pytest.mark.parametrize("media_type", ["application/x-npy", "text/html, */*", "image/png"])
def test_a_parameter_without_a_value_that_can_be_read_is_406(
    client: FlaskClient, media_type: str, parameter: str, name: str
) -> None:
    response = invoke(client, accept=f"{media_type}; {parameter.format(name)}")
    assert (response.status_code, "has no value" in error_of(response)) == (406, True)


@pytest.mark.parametrize("accept", ["image/png;tta=flip scales", "image/png;tta=flip;scales", "image/png, top_k=1"])
def test_a_parameter_after_the_wrong_separator_is_406(client: FlaskClient, accept: str) -> None:
    assert invoke(client, accept=accept).status_code == 406


@pytest.mark.parametrize("accept", ["text/html", "image/jpeg", "image/png;q=0", "*/*;q=0", "nonsense"])
def test_an_unavailable_accept_is_406_before_anything_else(client: FlaskClient, accept: str) -> None:
    response = invoke(client, b"no image", "text/plain", accept)
    assert response.status_code == 406
    assert "image/png, application/x-protobuf" in error_of(response)


@pytest.mark.parametrize(
    "content_type", ["text/csv", "application/x-npy", "multipart/form-data; boundary=x", "image/webp", "nonsense"]
)
def test_a_content_type_that_cannot_be_an_image_is_415_before_the_body_matters(
    client: FlaskClient, content_type: str
) -> None:
    response = invoke(client, bytes(200_000), content_type)
    assert response.status_code == 415
    given = content_type.split(";")[0]
    remedy = "send the raw bytes of a JPEG or PNG as image/jpeg or image/png, or several in application/json"
    assert error_of(response) == f"Content-Type {given} is not supported; {remedy}"


@pytest.mark.parametrize("header", ["Content-Type", "Content-Encoding"])
def test_an_error_shows_only_the_beginning_of_a_long_header(client: FlaskClient, header: str) -> None:
    headers = {"Content-Type": "image/png", header: "a" * 5000}
    response = client.post("/invocations", data=picture(40, 30), headers=headers)
    assert (response.status_code, len(error_of(response)) < 400) == (415, True)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (base64.b64encode(picture(40, 30)), "but base64 text of a PNG: decode it"),  # as API Gateway sends
        (base64.b64encode(picture(40, 30, "JPEG")), "but base64 text of a JPEG: decode it"),
        (base64.urlsafe_b64encode(picture(40, 30, "JPEG")), "but base64 text of a JPEG: decode it"),
        (base64.encodebytes(picture(40, 30)), "but base64 text of a PNG: decode it"),
        (b'"' + base64.b64encode(picture(40, 30)) + b'"', "but base64 text of a PNG: decode it"),
        (b"data:image/png;base64," + base64.b64encode(picture(40, 30)), "but a data: URL: decode its base64 part"),
        (b'{"instances": []}', "but JSON"),
    ],
)
@pytest.mark.parametrize(("content_type", "status"), [("image/png", 400), ("application/x-image", 400), ("*/*", 415)])
def test_text_in_place_of_an_image_is_named(
    client: FlaskClient, body: bytes, said: str, content_type: str, status: int
) -> None:
    response = invoke(client, body, content_type)
    assert (response.status_code, said in error_of(response)) == (status, True)


@pytest.mark.parametrize(
    ("content_type", "said"),
    [
        ("application/octet-stream", "Content-Type application/octet-stream is"),
        ("application/x-www-form-urlencoded", "Content-Type application/x-www-form-urlencoded is"),
        ("image/*", "Content-Type image/* is"),
        ("*/*", "Content-Type */* is"),
        ("image/x-png", "Content-Type image/x-png is"),
        (None, "no Content-Type is"),
    ],
)
def test_unspecific_content_type_is_415_if_the_body_is_not_an_image(
    client: FlaskClient, content_type: str | None, said: str
) -> None:
    response = invoke(client, b"name=value", content_type)
    assert response.status_code == 415
    assert error_of(response) == (
        f"{said} supported for a JPEG or PNG only: this is neither a JPEG nor a PNG image, but form data: "
        "provide the raw bytes of a JPEG or PNG as the body"
    )
    assert invoke(client, picture(90, 90)[:60], content_type).status_code == 400
    assert invoke(client, picture(101, 100), content_type).status_code == 413


@pytest.mark.parametrize(("orientation", "height", "width"), [("ignore", 2, 3), ("apply", 3, 2)])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_an_image_is_answered_as_stored_or_as_shown(
    orientation: Literal["ignore", "apply"], height: int, width: int, file_format: str
) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6  # shown after a quarter turn to the right
    image = Image.new("RGB", (3, 2))
    image.paste((255, 0, 0), (0, 0, 3, 1))  # the upper row is shown as the right column
    target = io.BytesIO()
    image.save(target, file_format, exif=tags, **({"quality": 100, "subsampling": 0} if file_format == "JPEG" else {}))
    client = create_app(loaded(FakeEngine()), dataclasses.replace(SETTINGS, exif_orientation=orientation)).test_client()
    mask = np.asarray(Image.open(io.BytesIO(invoke(client, target.getvalue()).data)))
    assert mask.tolist() == ([[1, 1, 1], [0, 0, 0]] if orientation == "ignore" else [[0, 1]] * 3)
    assert invoke(client, target.getvalue(), accept="application/json").json["shape"] == [height, width]


def test_the_log_has_the_size_that_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    tags = Image.Exif()
    tags[0x0112] = 8
    target = io.BytesIO()
    Image.new("RGB", (8, 4)).save(target, "JPEG", exif=tags)
    client = create_app(loaded(FakeEngine()), dataclasses.replace(SETTINGS, exif_orientation="apply")).test_client()
    with caplog.at_level(logging.INFO, "container.requests"):
        assert invoke(client, target.getvalue()).status_code == 200
    facts = json.loads(caplog.messages[-1])
    assert (facts["height"], facts["width"]) == (8, 4)


def test_an_image_without_its_end_mark_is_answered_in_silence(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    whole = picture(30, 20, "JPEG")
    assert invoke(client, whole[:-2]).data == invoke(client, whole).data
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_too_large_a_body_is_413(client: FlaskClient) -> None:
    response = invoke(client, bytes(100_001))
    assert response.status_code == 413
    assert "larger than 100000 bytes" in error_of(response)
    assert invoke(client, bytes(100_000)).status_code == 400


def test_too_many_pixels_are_413_with_advice(client: FlaskClient) -> None:
    assert invoke(client, picture(100, 100)).status_code == 200
    response = invoke(client, picture(101, 100))
    assert response.status_code == 413
    assert error_of(response) == (
        "the image has 101×100 pixels, more than 10000. Scale the image down, or raise MAX_PIXELS."
    )


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "body is empty"),
        (b"hello", "neither a JPEG nor a PNG image, but text ('hello'): provide the raw bytes"),
        (b'{"data": "/9j/4AAQ"}', "neither a JPEG nor a PNG image, but JSON: provide the raw bytes"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "neither a JPEG nor a PNG image, but a WebP image: convert it to JPEG or PNG"),
        (picture(90, 90)[:60], "PNG image is corrupt: it is truncated inside the chunk IDAT"),
        (picture(90, 90, "JPEG")[:-90], "JPEG image is corrupt: it is truncated inside the image data"),
    ],
)
def test_an_undecodable_body_is_400(client: FlaskClient, body: bytes, reason: str) -> None:
    response = invoke(client, body)
    assert response.status_code == 400
    assert reason in error_of(response)


def test_unknown_routes_and_methods_are_json_too(client: FlaskClient) -> None:
    unknown = client.get("/nothing")
    assert unknown.status_code == 404
    error_of(unknown)
    wrong = client.get("/invocations")
    assert (wrong.status_code, "POST" in wrong.headers["Allow"]) == (405, True)
    error_of(wrong)


def test_a_defect_is_500_with_its_traceback_in_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeEngine):
        def mask(
            self, image: np.ndarray, plan: Plan | None = None, stop: CancellationToken | None = None
        ) -> np.ndarray:
            raise ZeroDivisionError("a secret")

    with caplog.at_level(logging.ERROR):
        response = invoke(create_app(loaded(Broken()), SETTINGS).test_client())
    assert response.status_code == 500
    assert error_of(response) == "internal error; the endpoint's log has the details"
    assert "ZeroDivisionError: a secret" in caplog.text


class Blocked(FakeEngine):
    """Answers only when it is told to."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def mask(self, image: np.ndarray, plan: Plan | None = None, stop: CancellationToken | None = None) -> np.ndarray:
        while not self.go_on.wait(0.01):
            if stop:
                stop.check()
        return super().mask(image)


def learnt(engine: Engine, seconds: float) -> Future[Model]:
    """A loaded model of which any image is known to take so long, and a million pixels ten times as long."""
    model = loaded(engine)
    model.result().info.latency.update(1, seconds)
    model.result().info.latency.update(10**6, 11 * seconds)
    return model


@pytest.mark.parametrize(("size", "is_learnt"), [((15, 200), False), ((200, 8), False), ((16, 200), True)])
def test_the_time_of_a_thin_image_does_not_change_the_estimate(size: tuple[int, int], is_learnt: bool) -> None:
    model = learnt(FakeEngine(), 4.0)
    latency = model.result().info.latency
    before = latency.estimate(64)
    body = io.BytesIO()
    Image.new("RGB", size[::-1]).save(body, "PNG")
    client = create_app(model, SETTINGS).test_client()
    assert client.post("/invocations", data=body.getvalue(), content_type="image/png").status_code == 200
    assert (latency.estimate(64) != before) == is_learnt


def test_request_with_a_long_expected_wait_is_503_immediately_and_ping_is_200() -> None:
    engine = Blocked()
    app = create_app(learnt(engine, 4.0), dataclasses.replace(SETTINGS, queue_seconds=10))
    queue = app.extensions["queue"]
    with ThreadPoolExecutor(3) as pool:
        try:
            waiting = [pool.submit(invoke, app.test_client()) for _ in range(3)]  # the last one waits for 8 s
            wait_until(lambda: queue.in_flight == 2 and queue.waiting == 1, 30)
            refused = invoke(app.test_client())  # would wait for 12
            assert refused.status_code == 503
            assert int(refused.headers["Retry-After"]) in (1, 2)
            assert "1 requests wait in the queue, for about 12 s. Try again later" in error_of(refused)
            assert app.test_client().get("/ping").status_code == 200
        finally:
            engine.go_on.set()
        assert [answer.result().status_code for answer in waiting] == [200] * 3
    assert invoke(app.test_client()).status_code == 200


def test_an_image_that_alone_would_take_too_long_is_413_with_the_estimate() -> None:
    engine = Blocked()
    client = create_app(learnt(engine, 1000.0), SETTINGS).test_client()  # a hundredth of a second per pixel
    answer = invoke(client, picture(80, 80))
    assert answer.status_code == 413
    expected = "80×80 pixels take about 64 s, more than the 58 s that SAGEMAKER_MODEL_SERVER_TIMEOUT allows"
    assert error_of(answer) == f"{expected}. Scale the image down."


def test_what_takes_too_long_is_stopped_and_503() -> None:
    engine = Blocked()
    app = create_app(loaded(engine), dataclasses.replace(SETTINGS, timeout=1))
    answer = invoke(app.test_client())
    assert answer.status_code == 503
    assert "The request took too long" in error_of(answer)
    assert app.extensions["queue"].in_flight == 0


def test_bodies_beyond_their_share_of_memory_are_413_or_503() -> None:
    engine, budget = Blocked(), MemoryBudget(8 * (len(picture()) + 9))
    engine.planner = SimpleNamespace(plan=lambda *_: Plan(0, 1))
    app = create_app(loaded(engine), SETTINGS, budget=budget)
    too_large = invoke(app.test_client(), picture() + bytes(10))
    assert too_large.status_code == 413
    assert f"more than the {len(picture()) + 9} bytes that this server's memory allows" in error_of(too_large)
    with ThreadPoolExecutor(1) as pool:
        try:
            held = pool.submit(invoke, app.test_client())
            wait_until(lambda: app.extensions["queue"].in_flight == 1, 30)
            refused = invoke(app.test_client())
            assert refused.status_code == 503
            assert f"already holds {len(picture())} bytes of request bodies" in error_of(refused)
        finally:
            engine.go_on.set()
        assert held.result().status_code == 200
    assert budget.reserved.total() == 0


def test_image_waits_until_memory_is_released() -> None:
    engine = Blocked()
    app = create_app(
        loaded(engine), SETTINGS, budget=(budget := MemoryBudget(16_000))
    )  # 14,000 for images of 6,000 each
    with ThreadPoolExecutor(3) as pool:
        try:
            waiting = [pool.submit(invoke, app.test_client(), picture(), "image/png") for _ in range(3)]
            wait_until(lambda: budget.reserved["work"] == 12_000 and app.extensions["queue"].waiting == 1, 30)
            reservation = Reservation(budget)
            with pytest.raises(ServiceUnavailableError, match="took too long"):
                reservation.wait_for_memory(MemoryEstimate(6000), RequestDeadline(0.1))
        finally:
            engine.go_on.set()
        assert [answer.result().status_code for answer in waiting] == [200] * 3
    assert budget.reserved.total() == 0


def test_queue_seconds_limits_the_wait_for_memory_and_inference_slots() -> None:
    for total in (10_000, 10**6):  # memory for one image, or for all: the second one waits for the lane
        engine = Blocked()
        app = create_app(loaded(engine), dataclasses.replace(SETTINGS, queue_seconds=1), budget=MemoryBudget(total))
        with ThreadPoolExecutor(1) as pool:
            try:
                first = pool.submit(invoke, app.test_client())
                wait_until(lambda: app.extensions["queue"].in_flight == 1, 30)  # noqa: B023
                start = time.monotonic()
                refused = invoke(app.test_client())
                assert (refused.status_code, "QUEUE_SECONDS" in error_of(refused)) == (503, True)
                assert time.monotonic() - start < 30  # of the 58 that its answer may take
            finally:
                engine.go_on.set()
            assert first.result().status_code == 200


def test_a_failed_request_gives_its_slot_back(client: FlaskClient) -> None:
    assert {invoke(client, b"no image").status_code for _ in range(40)} == {400}
    assert invoke(client).status_code == 200
