"""What a client can ask for beyond the plain forms, and what it is refused before the model is asked."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import logging
import re
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.http import parse_options_header
from werkzeug.test import TestResponse

from container.artifact.classes import ClassEntry
from container.codecs.response_formats import ENCODERS, compress
from container.engines.protocol import CancellationToken, Plan
from container.serving.app import create_app
from container.serving.memory_budget import MemoryBudget
from tests.unit.serving.test_serving import SETTINGS, FakePlanner, error_of, loaded, picture

SCORES = np.array([0.125, 0.625, 0.25], np.float32)  # of three classes at every pixel


class ConstantEngine:
    """Says the same everywhere, and counts how often it is asked."""

    num_classes = 3
    precision = "float32"
    memory = standing = 0
    planner = FakePlanner()

    def __init__(self) -> None:
        self.calls = 0

    def mask(self, image: np.ndarray, plan: Plan | None = None, stop: CancellationToken | None = None) -> np.ndarray:
        self.calls += 1
        return np.ones(image.shape[:2], np.uint8)

    def probabilities(
        self, image: np.ndarray, plan: Plan | None = None, stop: CancellationToken | None = None
    ) -> np.ndarray:
        self.calls += 1
        return np.ascontiguousarray(np.broadcast_to(SCORES[:, None, None], (3, *image.shape[:2])))

    def warm(self) -> None:
        pass

    def release(self) -> None:
        pass


@pytest.fixture
def engine() -> ConstantEngine:
    return ConstantEngine()


def client_of(engine: ConstantEngine, classes: dict[int, ClassEntry] | None = None, **changes: Any) -> FlaskClient:
    return create_app(loaded(engine, classes), dataclasses.replace(SETTINGS, **changes)).test_client()


def ask(client: FlaskClient, accept: str, body: bytes | None = None, encoding: str = "identity") -> TestResponse:
    headers = {"Accept": accept, "Accept-Encoding": encoding}
    data = picture() if body is None else body
    return client.post("/invocations", data=data, content_type="image/png", headers=headers, buffered=True)


@pytest.mark.parametrize(("dtype", "values"), [("float16", [0.125, 0.625, 0.25]), ("uint8", [32, 159, 64])])
def test_npy_in_other_types(engine: ConstantEngine, dtype: str, values: list[float]) -> None:
    answer = np.load(io.BytesIO(ask(client_of(engine), f"application/x-npy; dtype={dtype}").data))
    assert (answer.dtype, answer.shape) == (np.dtype(dtype), (1, 3, 2, 3))
    assert answer[0, :, 1, 2].tolist() == values


def test_npy_of_the_likeliest_classes(engine: ConstantEngine) -> None:
    answer = np.load(io.BytesIO(ask(client_of(engine), "application/x-npy;top_k=2;dtype=uint8").data))
    assert (answer.shape, answer.dtype.names) == ((1, 2, 2, 3), ("class", "probability"))
    assert answer[0, :, 0, 0].tolist() == [(1, 159), (2, 64)]


def test_record_of_the_likeliest_classes(engine: ConstantEngine) -> None:
    one_pixel = io.BytesIO()
    Image.new("RGB", (1, 1)).save(one_pixel, "PNG")
    answer = ask(client_of(engine), "application/x-recordio-protobuf; top_k=2", one_pixel.getvalue()).data
    target = bytes.fromhex("0a16 0a06") + b"target" + bytes.fromhex("120c 120a 0a08") + struct.pack("<2f", 0.625, 0.25)
    shape = bytes.fromhex("0a11 0a05") + b"shape" + bytes.fromhex("1208 3a06 0a04 01020101")
    classes = bytes.fromhex("0a11 0a07") + b"classes" + bytes.fromhex("1206 4a04 0a02 0102")
    record = target + shape + classes
    assert answer == struct.pack("<II", 0xCED7230A, len(record)) + record + bytes(-len(record) % 4)


@pytest.mark.parametrize(
    ("accept", "reason"),
    [
        ("application/x-npy; dtype=int4", "dtype=int4 is not valid. Use one of float32, float16, uint8"),
        ("application/x-npy; top_k=0", "top_k=0 is not valid. Use an integer above 0"),
        ("application/x-recordio-protobuf; top_k=4", "top_k=4 is larger than the number of classes of this model (3)"),
        ("image/png; palette=cga", "palette=cga is not valid. Use voc or data"),
        ("image/png; palette=data", "Use palette=voc"),
    ],
)
def test_parameters_that_cannot_be_honoured_are_406(engine: ConstantEngine, accept: str, reason: str) -> None:
    answer = ask(client_of(engine), accept)
    assert (answer.status_code, engine.calls) == (406, 0)
    assert reason in error_of(answer)


def test_the_palette_of_pascal_voc(engine: ConstantEngine) -> None:
    image = Image.open(io.BytesIO(ask(client_of(engine), "image/png; palette=voc").data))
    assert (image.mode, image.getpixel((0, 0))) == ("P", 1)
    colors = np.reshape(image.getpalette(), (-1, 3))
    listed = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    for label, color in listed.items():  # as in the data set's own documentation
        assert tuple(colors[label]) == color
    assert tuple(colors[255]) == (224, 224, 192)


def test_the_datas_own_names_and_colors(engine: ConstantEngine) -> None:
    client = client_of(engine, {1: ClassEntry("cat", (10, 20, 30))})
    image = Image.open(io.BytesIO(ask(client, "image/png; palette=data").data))
    assert image.convert("RGB").getpixel((2, 1)) == (10, 20, 30)
    (described,) = ask(client, "application/json").json["classes"]
    assert (described["id"], described["name"]) == (1, "cat")


FLOATS = "application/x-npy"
BYTES = "application/x-npy; dtype=uint8"


@pytest.mark.parametrize(
    ("accept", "encoding", "compressed"),
    [
        ("application/json", "deflate, gzip", True),
        ("application/json", "gzip;q=0", False),
        ("application/json", "gzip;q=0.5, identity", False),
        ("application/json", "*", False),
        (BYTES, "gzip, deflate, br", True),
        (FLOATS, "gzip", True),
        (FLOATS, "GZIP, identity;q=0.5", True),
        (FLOATS, "gzip, br;q=0", True),
        (FLOATS, "gzip, deflate", False),  # what Python's requests asks for by itself
        (FLOATS, "gzip, *", False),
        (FLOATS, "gzip, deflate, identity;q=0", True),
        (FLOATS, "gzip, deflate, *;q=0", True),
        ("application/x-npy; dtype=float16", "gzip, deflate", False),
        ("application/x-npy; top_k=1", "gzip, deflate", False),
        ("application/x-protobuf", "gzip, deflate", False),
        ("application/x-protobuf", "gzip", True),
    ],
)
def test_gzip_when_asked_for(engine: ConstantEngine, accept: str, encoding: str, compressed: bool) -> None:
    client = client_of(engine)
    plain, answer = ask(client, accept), ask(client, accept, encoding=encoding)
    assert (plain.headers.get("Content-Encoding"), "gzip" in answer.headers.get("Content-Encoding", "")) == (
        None,
        compressed,
    )
    assert (gzip.decompress(answer.data) if compressed else answer.data) == plain.data
    assert int(answer.headers["Content-Length"]) == len(answer.data)
    assert answer.headers["Vary"] == plain.headers["Vary"] == "Accept, Accept-Encoding"


def test_png_is_never_compressed_twice(engine: ConstantEngine) -> None:
    assert "Content-Encoding" not in ask(client_of(engine), "image/png", encoding="gzip").headers


def test_too_long_an_answer_is_413_before_the_model_is_asked(engine: ConstantEngine) -> None:
    client = client_of(engine, max_response=2000)
    answer = ask(client, "application/x-npy", picture(40, 20))
    assert (answer.status_code, engine.calls) == (413, 0)
    assert "more than MAX_RESPONSE_BYTES=2000. Scale the image down, or request image/png" in error_of(answer)
    assert ask(client, "application/x-npy; top_k=1; dtype=uint8", picture(40, 20)).status_code == 200
    assert ask(client, "application/x-npy", picture(40, 20), "gzip").status_code == 200


def test_too_long_a_mask_is_413_too(engine: ConstantEngine) -> None:
    assert ask(client_of(engine, max_response=10), "image/png").status_code == 413


def test_an_image_that_needs_too_much_memory_is_413_before_the_model_is_asked(engine: ConstantEngine) -> None:
    client = client_of(engine, image_memory=1_030_000)
    assert ask(client, "image/png", picture(32, 32)).status_code == 200
    answer = ask(client, "image/png", picture(40, 40))  # 1,600,000 bytes, as the engine says
    assert (answer.status_code, engine.calls) == (413, 1)
    assert (
        "40×40 pixels need 1600000 bytes; an image may take 1030000. Scale the image down, or choose an instance"
        in error_of(answer)
    )
    assert ask(client, "application/x-npy", picture(32, 32)).status_code == 413  # the probabilities count too


def test_probabilities_beyond_a_record_are_refused_before_the_model_is_asked(engine: ConstantEngine) -> None:
    body = picture(1, 1)
    header = b"IHDR" + struct.pack(">II", 7000, 7000)
    lying = body[:12] + header + body[24:]
    lying = lying[:29] + struct.pack(">I", zlib.crc32(lying[12:29])) + lying[33:]
    answer = ask(client_of(engine, max_pixels=10**8, image_memory=10**12), "application/x-recordio-protobuf", lying)
    assert (answer.status_code, engine.calls) == (413, 0)
    assert "do not fit in a RecordIO record" in error_of(answer)


def test_every_request_is_one_line_of_log(engine: ConstantEngine, caplog: pytest.LogCaptureFixture) -> None:
    client = client_of(engine)
    with caplog.at_level(logging.INFO, "container.requests"):
        ask(client, "image/png")
        ask(client, "text/html")
        client.get("/ping")
    good, refused = (json.loads(record.message) for record in caplog.records)
    assert {"read_ms", "queue_ms", "decode_ms", "inference_ms", "encode_ms", "total_ms"} <= set(good)
    assert (good["status"], good["path"], good["height"], good["width"]) == (200, "/invocations", 2, 3)
    assert good["bytes_in"] == len(picture())
    assert (refused["status"], "inference_ms" in refused) == (406, False)


def test_the_log_can_be_plain_text(engine: ConstantEngine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "container.requests"):
        ask(client_of(engine, log_format="text"), "image/png")
    assert re.match(r"time=\S+ worker=\d+ method=POST path=/invocations read_ms=", caplog.records[0].message)


def test_metrics_only_when_switched_on(engine: ConstantEngine) -> None:
    assert client_of(engine).get("/metrics").status_code == 404
    client = client_of(engine, metrics=True)
    ask(client, "image/png")
    ask(client, "text/html")
    lines = client.get("/metrics").text.splitlines()
    assert 'requests_total{status="200"} 1.0' in lines
    assert 'requests_total{status="406"} 1.0' in lines
    assert "requests_waiting 0.0" in lines
    assert 'phase_seconds_count{phase="inference"} 1.0' in lines
    assert 'phase_seconds_bucket{le="60.0",phase="inference"} 1.0' in lines
    assert 'memory_taken_bytes{kind="bodies"} 0.0' in lines
    assert 'model_info{engine="openvino",model="unused",precision="float32"} 1.0' in lines


def test_no_path_writes_a_line_of_its_own(engine: ConstantEngine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "container.requests"):
        client_of(engine, log_format="text").get("/x%0Astatus=200 y", buffered=True)
    (line,) = [record.message for record in caplog.records]
    assert "\n" not in line
    assert ' path="/x\\\\nstatus=200 y" ' in line


def test_the_platforms_names_for_a_request_are_in_the_log_and_come_back(
    engine: ConstantEngine, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"X-Amzn-SageMaker-Inference-Id": "id-7", "X-Amzn-SageMaker-Custom-Attributes": "trace=ä" + "x" * 2000}
    with caplog.at_level(logging.INFO, "container.requests"):
        answer = client_of(engine).post("/invocations", data=picture(), content_type="image/png", headers=headers)
        answer.close()
    assert answer.headers["X-Amzn-SageMaker-Inference-Id"] == "id-7"
    assert answer.headers["X-Amzn-SageMaker-Custom-Attributes"] == "trace=\\xe4" + "x" * 1017
    facts = json.loads(caplog.records[0].message)
    assert (facts["inference-id"], facts["custom-attributes"]) == ("id-7", "trace=ä" + "x" * 1017)
    assert "T" in facts["time"]


PEAKS = [
    "application/x-npy",
    "application/x-npy; dtype=float16",
    "application/x-npy; dtype=uint8",
    "application/x-npy; top_k=1",
    "application/x-npy; top_k=5; dtype=uint8",
    "application/x-npy; top_k=5; dtype=float16",
    "application/x-npy; top_k=21",
    "application/x-protobuf",
    "application/x-protobuf; top_k=5",
]


@pytest.mark.parametrize("accept", PEAKS)
def test_an_encoder_takes_the_memory_that_it_states(accept: str) -> None:
    probabilities = np.random.default_rng(0).random((21, 400, 400), np.float32)
    media_type, options = parse_options_header(accept)
    encoder = ENCODERS[media_type](options, {})
    stated = encoder.memory(21, 400, 400)
    tracemalloc.start()
    try:
        answer = encoder.encode(probabilities)
        encoded = tracemalloc.get_traced_memory()[1]
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        compress(answer)
        compressed = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert stated * 0.9 <= encoded <= stated + 2**21
    assert compressed <= encoder.size(21, 400, 400) + 3 * 2**20


@pytest.mark.parametrize("accept", ["application/json", "image/png", "image/png; palette=voc"])
@pytest.mark.parametrize("classes", [2, 254])
def test_a_mask_takes_less_than_decoding_its_image(accept: str, classes: int) -> None:
    mask = np.random.default_rng(0).integers(0, classes, (300, 300), np.uint8)
    media_type, options = parse_options_header(accept)
    tracemalloc.start()
    try:
        answer = ENCODERS[media_type](options, {}).encode(mask)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * mask.size  # of 28 bytes per pixel
    assert sum(map(len, answer)) < 4 * mask.size


def test_compressing_an_answer_is_counted(engine: ConstantEngine) -> None:
    most = {}
    for encoding in ("identity", "gzip"):
        app = create_app(loaded(engine), SETTINGS, budget=(budget := MemoryBudget(10**9)))
        assert ask(app.test_client(), "application/x-npy", picture(50, 40), encoding).status_code == 200
        most[encoding] = budget.peak
    assert most["gzip"] - most["identity"] == 4 * 3 * 50 * 40 + 256
