from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from container.codecs.recordio import RecordTooLongError
from container.codecs.response_formats import ENCODERS


def encode(media_type: str, answer: np.ndarray) -> bytes:
    return b"".join(ENCODERS[media_type]({}, {}).encode(answer))


def test_png_holds_class_ids_in_one_channel() -> None:
    mask = np.array([[0, 1, 253], [7, 7, 0]], np.uint8)
    image = Image.open(io.BytesIO(encode("image/png", mask)))
    assert (image.format, image.mode, image.size) == ("PNG", "L", (3, 2))
    assert image.tobytes() == bytes([0, 1, 253, 7, 7, 0])


def test_npy_holds_a_batch_of_one() -> None:
    probabilities = np.random.default_rng(1).random((3, 5, 4), np.float32)
    loaded = np.load(io.BytesIO(encode("application/x-npy", probabilities)), allow_pickle=False)
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, probabilities[None])


@pytest.mark.parametrize("media_type", ["application/x-protobuf", "application/x-recordio-protobuf"])
def test_recordio_protobuf_byte_by_byte(media_type: str) -> None:
    framing = "0a23d7ce 2b000000"
    target = "0a 16 0a 06 746172676574 12 0c 12 0a 0a 08 0000803e 0000403f"
    shape = "0a 11 0a 05 7368617065 12 08 3a 06 0a 04 01020101"
    expected = bytes.fromhex(framing + target + shape + "00")
    assert encode(media_type, np.array([[[0.25]], [[0.75]]], np.float32)) == expected


def test_recordio_of_values_that_look_like_magic_is_split() -> None:
    magic = np.frombuffer(bytes.fromhex("0a23d7ce") * 3, "<u4").view(np.float32)
    shifted = [np.frombuffer(bytes(pad) + magic.tobytes() + bytes(4 - pad), np.float32) for pad in range(4)]
    parts = [encode("application/x-protobuf", values.reshape(1, 1, -1))[7] >> 5 for values in shifted]
    assert sorted(parts) == [0, 0, 0, 1]  # a fixed header: exactly one of the four shifts is on the record's grid


def test_recordio_beyond_its_limit_is_refused() -> None:
    with pytest.raises(RecordTooLongError, match="do not fit in a RecordIO record"):
        ENCODERS["application/x-protobuf"]({}, {}).size(2, 8192, 8192)


def masks() -> list[np.ndarray]:
    random = np.random.default_rng(3)
    return [
        np.zeros((1, 1), np.uint8),
        np.full((4, 3), 253, np.uint8),
        np.array([[0, 1], [1, 0], [0, 1]], np.uint8),
        random.integers(0, 5, (17, 23)).astype(np.uint8),
        np.repeat(np.repeat(random.integers(0, 21, (6, 5)), 70, 0), 90, 1).astype(np.uint8),
        (random.random((64, 64)) > 0.98).astype(np.uint8),
    ]


def decode(counts: str, height: int, width: int) -> np.ndarray:
    """Read COCO's run lengths: 5 bits a character, the sixth says that more follow, from the fourth on differences.

    https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c (rleFrString)
    """
    runs: list[int] = []
    number = place = 0
    for code in counts.encode("ascii"):
        bits = code - 48
        number |= (bits & 31) << place
        place += 5
        if not bits & 32:
            number -= (bits & 16) << (place - 4)
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number = place = 0
    values = np.arange(len(runs)) % 2
    return np.repeat(values, runs).reshape((height, width), order="F")


def test_json_of_a_mask_worked_out_by_hand() -> None:
    answer = json.loads(encode("application/json", np.array([[0, 1], [1, 0], [0, 1]], np.uint8)))
    assert answer == {
        "shape": [3, 2],
        "classes": [  # column by column the pixels are 0 1 0 1 0 1
            {"id": 0, "share": 0.5, "box": [0, 0, 2, 3], "mask": {"size": [3, 2], "counts": "0110000"}},
            {"id": 1, "share": 0.5, "box": [0, 0, 2, 3], "mask": {"size": [3, 2], "counts": "111000"}},
        ],
    }


@pytest.mark.parametrize("mask", masks(), ids=lambda mask: "x".join(map(str, mask.shape)))
def test_json_says_where_each_class_is(mask: np.ndarray) -> None:
    answer = json.loads(encode("application/json", mask))
    assert answer["shape"] == list(mask.shape)
    assert [entry["id"] for entry in answer["classes"]] == sorted(set(mask.ravel().tolist()))
    for entry in answer["classes"]:
        truth = mask == entry["id"]
        assert entry["mask"]["size"] == list(mask.shape)
        np.testing.assert_array_equal(decode(entry["mask"]["counts"], *mask.shape), truth)
        assert entry["share"] == pytest.approx(truth.mean(), abs=1e-12)
        rows, columns = np.nonzero(truth)
        x, y, width, height = entry["box"]
        assert (x, y, x + width - 1, y + height - 1) == (columns.min(), rows.min(), columns.max(), rows.max())
