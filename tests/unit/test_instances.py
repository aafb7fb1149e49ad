"""Several images in one request: the form, the order of the answers, and what refuses them all."""

from __future__ import annotations

import base64
import gzip
import io
import json
import struct
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from container.serving.app import create_app
from tests.unit.test_serving import SETTINGS, FakeEngine, error_of, loaded, picture
from tests.unit.test_serving_answers import client_of


@pytest.fixture
def client() -> FlaskClient:
    return create_app(loaded(FakeEngine()), SETTINGS).test_client()


def instance(image: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(image).decode()}


def send(client: FlaskClient, content: Any, accept: str | None = None, **headers: str) -> TestResponse:
    headers |= {} if accept is None else {"Accept": accept}
    data = content if isinstance(content, bytes) else json.dumps(content)
    return client.post("/invocations", data=data, content_type="application/json", headers=headers, buffered=True)


SIZES = [(3, 2), (5, 4), (2, 7)]  # width, height
THREE = {"instances": [instance(picture(*size)) for size in SIZES]}


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "application/json, image/png;q=0.5"])
def test_json_holds_the_predictions_in_order(client: FlaskClient, accept: str | None) -> None:
    answer = send(client, THREE, accept)
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    assert list(answer.json) == ["predictions"]
    assert [each["shape"] for each in answer.json["predictions"]] == [[2, 3], [4, 5], [7, 2]]
    for (width, height), prediction in zip(SIZES, answer.json["predictions"], strict=True):
        assert prediction == ask_alone(client, picture(width, height), "application/json").json
        assert prediction["classes"][1]["box"] == [width - 1, 0, 1, 1]  # the picture's one red pixel
    assert int(answer.headers["Content-Length"]) == len(answer.data)


def ask_alone(client: FlaskClient, image: bytes, accept: str) -> TestResponse:
    return client.post("/invocations", data=image, content_type="image/png", headers={"Accept": accept}, buffered=True)


def test_arrays_follow_one_another(client: FlaskClient) -> None:
    answer = io.BytesIO(send(client, THREE, "application/x-npy; dtype=uint8").data)
    arrays = [np.load(answer) for _ in SIZES]
    assert not answer.read()
    assert [array.shape for array in arrays] == [(1, 2, height, width) for width, height in SIZES]
    assert arrays[1][0, :, 0, 4].tolist() == [64, 191]  # 0.25 and 0.75 of 255


def test_every_image_has_its_record(client: FlaskClient) -> None:
    answer = send(client, THREE, "application/x-recordio-protobuf").data
    records = []
    while answer:
        magic, length = struct.unpack("<II", answer[:8])
        assert magic == 0xCED7230A
        records.append(answer[: 8 + -(-length // 4) * 4])
        answer = answer[len(records[-1]) :]
    assert records == [ask_alone(client, picture(*size), "application/x-recordio-protobuf").data for size in SIZES]


def test_a_png_holds_one_mask(client: FlaskClient) -> None:
    one = send(client, {"instances": [instance(picture())]}, "image/png")
    assert (one.status_code, one.mimetype) == (200, "image/png")
    assert Image.open(io.BytesIO(one.data)).tobytes() == bytes([0, 0, 1, 0, 0, 0])
    three = send(client, THREE, "image/png")
    assert three.status_code == 406
    assert error_of(three) == (
        "Accept: image/png holds one mask, the request has 3 images; "
        "ask for application/json, application/x-recordio-protobuf or application/x-npy"
    )


def test_both_ways_can_be_compressed(client: FlaskClient) -> None:
    packed = gzip.compress(json.dumps(THREE).encode())
    answer = send(client, packed, **{"Content-Encoding": "gzip", "Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(answer.data)) == send(client, THREE).json


def test_what_clients_of_tensorflow_serving_add_is_passed_over(client: FlaskClient) -> None:
    assert send(client, {"signature_name": "serving_default", **THREE}).status_code == 200


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (b"[" * 100_000, 400, "the body is no JSON: it is nested too deeply; send {"),
        (b"\xff\xfe\xfd", 400, "the body is no JSON: "),
        (b'{"instances": ', 400, "the body is no JSON: "),
        ([1], 400, "the JSON has no list `instances`"),
        ({"inputs": []}, 400, "the JSON has no list `instances`"),
        ({"instances": {"b64": ""}}, 400, "the JSON has no list `instances`"),
        ({"instances": []}, 400, "the list `instances` is empty"),
        ({**THREE, "output": "mask"}, 400, "the JSON's key 'output' is unknown"),
        ({"instances": [instance(picture()), "text"]}, 400, 'instances[1] is not {"b64": "…"}'),
        ({"instances": [{"b64": 3}]}, 400, 'instances[0] is not {"b64": "…"}'),
        ({"instances": [{"b64": "", "x": 1}]}, 400, 'instances[0] is not {"b64": "…"}'),
        ({"instances": [{"b64": "%%%%"}]}, 400, "instances[0] is no base64"),
        ({"instances": [{"b64": "é"}]}, 400, "instances[0] is no base64"),
        ({"instances": [{"b64": ""}]}, 400, "instances[0] is empty"),
        (
            {"instances": [instance(picture()), instance(b"no image")]},
            400,
            "instances[1]: this is neither a JPEG nor a PNG",
        ),
        ({"instances": [instance(picture(90, 90)[:60])]}, 400, "instances[0]: the PNG image is damaged"),
        ({"instances": [instance(picture(101, 100))]}, 413, "instances[0]: the image has 101×100 pixels"),
        ({"instances": [instance(picture(80, 80))] * 2}, 413, "the images have 12800 pixels, more than 10000"),
        ({"instances": [instance(picture())] * 65}, 413, "the request has 65 images, more than 64"),
    ],
)
def test_what_is_wrong_with_one_refuses_all(client: FlaskClient, content: Any, status: int, reason: str) -> None:
    answer = send(client, content)
    assert answer.status_code == status
    assert reason in error_of(answer)


def test_the_answers_are_limited_together() -> None:
    limited = client_of(FakeEngine(), max_response=1000)  # type: ignore[arg-type]
    one, two = ({"instances": [instance(picture(10, 10))] * count} for count in (1, 2))
    npy = "application/x-npy; dtype=uint8"  # 200 bytes of values, and up to 256 of headers
    assert [send(limited, content, npy).status_code for content in (one, two, {"instances": two["instances"] * 2})] == [
        200, 200, 413,
    ]  # fmt: skip


def test_the_log_counts_images_and_adds_up_their_phases(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "container.requests"):
        send(client, THREE)
    facts = json.loads(caplog.records[-1].message)
    assert (facts["images"], facts["status"]) == (3, 200)
    assert facts["inference_ms"] <= facts["total_ms"]
