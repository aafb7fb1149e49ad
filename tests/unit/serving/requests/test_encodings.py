"""Request bodies in gzip: what unpacks to an image, to too much, or to nothing."""

from __future__ import annotations

import gzip
import resource
import tracemalloc
import zlib

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from container.errors import RequestError
from container.serving.app import create_app
from container.serving.requests.bodies import decompress_gzip
from tests.unit.serving.test_serving import SETTINGS, FakeEngine, error_of, loaded, picture


@pytest.fixture
def client() -> FlaskClient:
    return create_app(loaded(FakeEngine()), SETTINGS).test_client()


def send(client: FlaskClient, body: bytes, encoding: str = "gzip") -> TestResponse:
    headers = {"Content-Encoding": encoding}
    return client.post("/invocations", data=body, content_type="image/png", headers=headers, buffered=True)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
def test_a_compressed_image_is_answered_like_the_image(client: FlaskClient, encoding: str) -> None:
    plain = send(client, picture(), "identity")
    answer = send(client, gzip.compress(picture()), encoding)
    assert (plain.status_code, answer.status_code, answer.data) == (200, 200, plain.data)


def test_streams_that_follow_one_another_are_one_body(client: FlaskClient) -> None:
    image = picture()
    assert send(client, gzip.compress(image[:20]) + gzip.compress(image[20:])).status_code == 200


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip"])
def test_another_encoding_is_415_before_the_body_matters(client: FlaskClient, encoding: str) -> None:
    answer = send(client, bytes(200_000), encoding)
    assert answer.status_code == 415
    assert error_of(answer) == f"Content-Encoding {encoding} is not supported; send gzip, or the bytes as they are"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (picture(), "the body is not valid gzip"),
        (gzip.compress(picture())[:-4], "the gzip body is truncated"),
        (gzip.compress(picture())[:-8] + bytes(8), "incorrect data check"),
        (gzip.compress(picture()) + b"rest", "the body is not valid gzip"),
        (zlib.compress(picture()), "the body is not valid gzip"),
        (gzip.compress(b""), "neither a JPEG nor a PNG"),
        (b"", "The body is empty"),
    ],
    ids=["plain", "cut off", "checksum", "rest", "zlib", "nothing", "empty"],
)
def test_invalid_gzip_is_400(client: FlaskClient, body: bytes, reason: str) -> None:
    answer = send(client, body)
    assert answer.status_code == 400
    assert reason in error_of(answer)


def test_a_bomb_is_413_and_never_unpacked(client: FlaskClient) -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(2**24)) for _ in range(64)) + packer.flush()  # a gigabyte
    assert len(bomb) > SETTINGS.max_body
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for limit in (100_000, 10_000_000):
        taken: list[int] = []
        with pytest.raises(RequestError, match=f"decompresses to more than {limit} bytes") as refused:
            decompress_gzip(bomb, limit, taken.append)
        assert refused.value.status == 413 and sum(taken) <= limit
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes
    assert send(client, gzip.compress(bytes(100_001))).status_code == 413
    assert send(client, gzip.compress(bytes(100_000))).status_code == 400


def test_thousands_of_empty_streams_are_413(client: FlaskClient) -> None:
    assert send(client, gzip.compress(b"") * 4000).status_code == 413


def test_a_body_is_counted_before_more_of_it_is_unpacked() -> None:
    packed = gzip.compress(bytes(24_000_000))
    counted, ahead = [0], [0]

    def grow(size: int) -> None:
        counted[0] += size
        ahead[0] = max(ahead[0], tracemalloc.get_traced_memory()[1] - counted[0])
        tracemalloc.reset_peak()

    tracemalloc.start()
    try:
        unpacked = decompress_gzip(packed, 30_000_000, grow)
        ahead[0] = max(ahead[0], tracemalloc.get_traced_memory()[1] - counted[0])
    finally:
        tracemalloc.stop()
    assert counted[0] == len(unpacked) == 24_000_000
    assert ahead[0] < 24_000_000 // 8 + 2**22  # a buffer that grows is an eighth larger than what it has


@pytest.mark.parametrize("size", [2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20, 3 * 2**20 + 5])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_nothing_is_lost_between_two_steps(size: int, level: int) -> None:
    content = (b"0123456789" * (size // 10 + 1))[:size]
    assert decompress_gzip(gzip.compress(content, level), 2**23) == content
