"""Several images in one request: the form, the order of the answers, and what refuses them all."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import json
import struct
import tracemalloc
import urllib.parse
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from container.errors import RequestError
from container.serving.app import create_app
from container.serving.memory_budget import MemoryBudget
from container.serving.requests import instances
from container.serving.requests.instances import read_instances
from tests.unit.serving.test_serving import SETTINGS, FakeEngine, error_of, loaded, picture
from tests.unit.serving.test_serving_answers import client_of


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


def test_png_contains_one_mask(client: FlaskClient) -> None:
    one = send(client, {"instances": [instance(picture())]}, "image/png")
    assert (one.status_code, one.mimetype) == (200, "image/png")
    assert Image.open(io.BytesIO(one.data)).tobytes() == bytes([0, 0, 1, 0, 0, 0])
    three = send(client, THREE, "image/png")
    assert three.status_code == 406
    assert error_of(three) == (
        "Accept: image/png can contain one mask, not 3; request "
        "application/json, application/x-recordio-protobuf or application/x-npy"
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
        (b"[" * 100_000, 400, "The body is not JSON: it is nested too deeply. Send {"),
        (b"\xff\xfe\xfd", 400, "The body is not JSON: "),
        (b'{"instances": ', 400, "The body is not JSON: "),
        ([1], 400, "The JSON has no list `instances`"),
        ({"inputs": []}, 400, "The JSON has no list `instances`"),
        ({"instances": {"b64": ""}}, 400, "The JSON has no list `instances`"),
        ({"instances": []}, 400, "The list `instances` is empty"),
        ({**THREE, "output": "mask"}, 400, "The key 'output' of the JSON is unknown"),
        ({"instances": [instance(picture()), "text"]}, 400, 'instances[1] is not {"b64": "…"}'),
        ({"instances": [{"b64": 3}]}, 400, 'instances[0] is not {"b64": "…"}'),
        ({"instances": [{"b64": "", "x": 1}]}, 400, 'instances[0] is not {"b64": "…"}'),
        ({"instances": [{"b64": "%%%%"}]}, 400, "instances[0] is not base64"),
        ({"instances": [{"b64": "é"}]}, 400, "instances[0] is not base64"),
        ({"instances": [{"b64": ""}]}, 400, "instances[0] is empty"),
        (
            {"instances": [instance(picture()), instance(b"no image")]},
            400,
            "instances[1]: this is neither a JPEG nor a PNG",
        ),
        ({"instances": [instance(picture(90, 90)[:60])]}, 400, "instances[0]: the PNG image is corrupt"),
        ({"instances": [instance(picture(101, 100))]}, 413, "instances[0]: the image has 101×100 pixels"),
        ({"instances": [instance(picture(80, 80))] * 2}, 413, "The images have 12800 pixels, more than 10000"),
        ({"instances": [instance(picture())] * 65}, 413, "The request has 65 images, more than 64"),
    ],
)
def test_error_in_one_image_rejects_the_request(client: FlaskClient, content: Any, status: int, reason: str) -> None:
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


IMAGE = picture(40, 30)
PLAIN = base64.b64encode(IMAGE).decode()
# of bytes whose base64 has all of + / and =
ODD = b"\xfb\xef\xbe\xff\xff\xfe" * 9 + b"\xff"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (json.dumps(base64.encodebytes(ODD).decode()), ODD),
        (json.dumps(base64.encodebytes(ODD).decode().replace("\n", "\r\n")), ODD),
        ('"' + base64.encodebytes(ODD).decode() + '"', ODD),  # line breaks that no JSON should have
        (json.dumps("  " + base64.b64encode(ODD).decode() + " "), ODD),
        (json.dumps(base64.b64encode(ODD).decode() + "\n\t"), ODD),
        (json.dumps(base64.urlsafe_b64encode(ODD).decode()), ODD),
        (json.dumps(base64.urlsafe_b64encode(ODD).decode().rstrip("=")), ODD),
        (json.dumps(base64.b64encode(ODD[:-2]).decode().rstrip("=")), ODD[:-2]),
        (json.dumps("data:image/png;base64," + base64.b64encode(ODD).decode()), ODD),
        (json.dumps("DATA:image/jpeg;charset=utf-8;BASE64," + base64.b64encode(ODD).decode()), ODD),
        (json.dumps("data:;base64," + base64.b64encode(ODD).decode()), ODD),
        (json.dumps("data:image/png;base64," + urllib.parse.quote(base64.b64encode(ODD).decode(), safe="")), ODD),
        (json.dumps("data:image/png;base64," + base64.b64encode(ODD).decode()).replace("/", r"\/"), ODD),  # PHP
        (json.dumps(base64.b64encode(ODD).decode()).replace("+", r"\u002B").replace("=", r"\u003D"), ODD),  # .NET
        (json.dumps(base64.b64encode(ODD).decode()).replace("+", r"\u002b").replace("/", r"\u002f"), ODD),
    ],
)  # fmt: skip
def test_base64_is_read_however_it_is_written(written: str, expected: bytes) -> None:
    assert read_instances(f'{{"instances": [{{"b64": {written}}}]}}'.encode()) == [expected]


@pytest.mark.parametrize("shift", range(8))
def test_chunks_do_not_split_an_escape(shift: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances, "_CHUNK", 32)
    data = bytes(range(256)) * 3 + bytes(shift)
    for line in (1, 7, 76):
        text = base64.b64encode(data).decode()
        lines = "\n".join(text[start : start + line] for start in range(0, len(text), line))
        written = json.dumps("\t" * shift + lines).replace("/", r"\/").replace("+", r"\u002b")
        assert json.loads(written).split() == lines.split()
        assert read_instances(f'{{"instances": [{{"b64": {written}}}]}}'.encode()) == [data]
    quoted = "data:image/png;base64," + urllib.parse.quote(base64.b64encode(data).decode(), safe="")
    assert read_instances(json.dumps({"instances": [{"b64": quoted}]}).encode()) == [data]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("https://example.com/a.jpg", "it contains ':'; it looks like a URL"),
        ("s3://bucket/a.jpg", "it looks like a URL"),
        (str(base64.b64encode(IMAGE)), 'it contains "\'"; it looks like the Python representation of base64 bytes'),
        ("<svg xmlns='http://www.w3.org/2000/svg'/>", "it looks like an SVG drawing"),
        ('{"b64": ""}', "it contains '{'"),
        (base64.b64encode(ODD).decode()[:-1], "it is truncated, or its padding (=) is wrong"),
        (PLAIN[:101], "it is truncated"),
        (PLAIN + "=" * 4, "it is truncated, or its padding (=) is wrong"),
        ("QUJD" + "QQ==" + PLAIN, "it continues after its padding"),
        (PLAIN[:20] + "é" + PLAIN[20:], r"it contains \u00e9"),
        (PLAIN[:20] + "\0" + PLAIN[20:], r"it contains \u0000"),
        (PLAIN[:20] + "\\n" + PLAIN[20:], r"it contains \\n"),  # a line break that was escaped twice
        (PLAIN.replace("A", " ", 1), "it contains ' ', perhaps in place of +"),
        ("data:image/png," + PLAIN, "is a data URL without ;base64"),
        ("data:image/png;base64," + "data:image/png;base64," + PLAIN, "it contains ':'"),
    ],
)
def test_invalid_base64_is_described(client: FlaskClient, text: str, reason: str) -> None:
    answer = send(client, {"instances": [{"b64": text}]})
    assert answer.status_code == 400
    assert error_of(answer).startswith("instances[0] is ")
    assert reason in error_of(answer)


def test_an_image_that_was_encoded_twice_is_named(client: FlaskClient) -> None:
    answer = send(client, {"instances": [{"b64": base64.b64encode(PLAIN.encode()).decode()}]})
    assert (answer.status_code, "but base64 text of a PNG" in error_of(answer)) == (400, True)


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (IMAGE, 400, "The body is not JSON: it is a PNG image"),
        (PLAIN.encode(), 400, "The body is not JSON: it is base64 text of a PNG"),
        (json.dumps(json.dumps(THREE)).encode(), 400, "it is a string"),
        (json.dumps(THREE).encode("utf-16"), 400, "The body is not JSON: "),
        (b"", 400, "The body is empty"),
        (b"{" * 20_000, 400, "The body is not JSON: Expecting property name"),
        (b"[" * 20_000, 400, "nested too deeply"),
        (b'{"a":' * 20_000, 400, "nested too deeply"),
        (b'{"instances": [' + b"0," * 40_000 + b"0]}", 413, "arrays of pixels"),
        (json.dumps({"instances": np.zeros((1, 64, 80, 3)).tolist()}).encode(), 413, "arrays of pixels"),
        ({"instances": np.zeros((1, 9, 9, 3)).tolist()}, 400, "but a list. Send {"),
        ({"instances": [{"data": PLAIN, "kind": "x"}]}, 400, "but an object with the keys 'data', 'kind'"),
        ({"instances": [{"b64": [1, 2]}]}, 400, "but `b64` with a list"),
        ({"inputs": 1}, 400, "but an object with the keys 'inputs'"),
        (b'{"instances": [], "instances": []}', 400, "it contains 'instances' twice"),
        (b'{"instances": [{"b64": "", "b64": ""}]}', 400, "it contains 'b64' twice"),
        (b'{"instances": [{"b64": "' + b"\\" * 70_000 + b'"}]}', 400, "a string that is not base64"),
        (b'{"instances": [{"b64": "' + b'\\"' * 40_000 + b'"}]}', 400, 'it contains \\"\\"\\"'),
        (b'{"instances": ' + b"7" * 60_000 + b"}", 400, "a number of 60000 digits"),
        (b'{"' + b"k" * 5_000 + b'": 1}', 400, "it has a key of 5000 bytes"),
        (b'{"instances": [{"b64": "QUJD', 400, "a string is truncated"),
        (b'{"0": 1}', 400, "with the keys '0'"),
        (b'{"instances": [{"b64": 0}]}', 400, "but `b64` with a number"),
        (b'{"\\ud800": 1, "instances": []}', 400, "is unknown"),
    ],
)
def test_unexpected_json_is_described(client: FlaskClient, content: Any, status: int, reason: str) -> None:
    answer = send(client, content)
    assert reason in error_of(answer)
    assert answer.status_code == status


@pytest.mark.parametrize("head", [b"\xef\xbb\xbf", b" \r\n\t"])
def test_json_may_begin_with_blanks_or_a_mark(client: FlaskClient, head: bytes) -> None:
    assert send(client, head + json.dumps(THREE, indent=4).encode()).status_code == 200


def test_other_strings_do_not_pass_for_images(client: FlaskClient) -> None:
    content = json.dumps({"signature_name": "3", **THREE}).replace('"signature_name"', r'"signature\u005fname"')
    assert send(client, content.encode()).json == send(client, THREE).json


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [' + b"{}," * 8_000_000 + b"{}]}",
        b'{"instances": [' + b'"",' * 8_000_000 + b'""]}',
        b"[" * 24_000_000,
        b"1" * 24_000_000,
        b'{"a": "' + b"\\u0041" * 4_000_000 + b'"}',
        b'{"a": "\\ud83d\\ude00' + b"a" * 24_000_000 + b'"}',
        b'{"' + b"a" * 24_000_000 + b'": 1}',
        b" " * 24_000_000,
        b'{"instances": [{"b64": "' + b"A" * 24_000_000 + b'"}]}',
        b'{"instances": [{"b64": "' + b"\\u0041" * 4_000_000 + b'"}]}',
        b'{"instances": [{"b64": "' + b"\\n" * 12_000_000 + b'QQ=="}]}',
    ],
    ids=["objects", "strings", "depth", "digits", "escapes", "wide", "name", "blanks", "image", "letters", "lines"],
)
def test_no_json_takes_more_memory_than_is_counted(body: bytes) -> None:
    tracemalloc.start()
    try:
        with contextlib.suppress(RequestError):
            read_instances(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= (instances.COPIES - 1) * len(body) + 2**23


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_the_answers_to_images_before_are_counted_and_their_compression(encoding: str) -> None:
    app = create_app(loaded(FakeEngine()), SETTINGS, budget=(budget := MemoryBudget(10**9)))
    content = {"instances": [instance(picture(50, 40))] * 5}
    held = {"application/json": 4 * 2000, "application/x-npy": 4 * 2 * 2000 + 256}
    for accept, size in held.items():
        budget.peak = 0
        assert send(app.test_client(), content, accept, **{"Accept-Encoding": encoding}).status_code == 200
        body = 2 * len(json.dumps(content))
        computing = 1000 * 2000 + (size if accept == "application/x-npy" else 0)
        copied = size if encoding == "gzip" and accept == "application/x-npy" else 0
        assert budget.peak == pytest.approx(body + 4 * size + computing + copied, rel=0.001)
