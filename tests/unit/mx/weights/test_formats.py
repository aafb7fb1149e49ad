"""Weight files that are damaged, hostile or of another kind: one error each, and no more memory than they are long."""

from __future__ import annotations

import json
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from container.errors import ClientError
from container.mx.weights.formats import is_weight_file, read_weights

WEIGHTS = {
    "conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "bn1.running_var": np.ones(2, np.float32),
}


def refusal(path: Path) -> str:
    """Return the error, which names the file and the remedy, and was had for little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(ClientError) as caught:
            read_weights(path, "Use another.")
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert message.startswith(str(path)) and message.endswith("Use another.")
    return message


def safetensors_file(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """Lay out a file by the published description: length of the header, header, tensors."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(kind: str = "F32", shape: tuple[int, ...] = (2,), start: int = 0, stop: int = 8) -> dict[str, object]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, stop]}


def test_floats_of_every_width_are_read(tmp_path: Path) -> None:
    for width in (np.float16, np.float32, np.float64):
        path = tmp_path / "weights"
        tensors = {name: array.astype(width) for name, array in WEIGHTS.items()}
        safetensors.numpy.save_file({**tensors, "bn1.num_batches_tracked": np.array(3)}, str(path))
        read = read_weights(path, "")
        assert read.keys() == WEIGHTS.keys()
        for name, array in WEIGHTS.items():
            assert read[name].dtype == np.float32 and np.array_equal(read[name], array)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (safetensors_file({"a": tensor()}, length=2**62), "its header has 4611686018427387904 bytes"),
        (safetensors_file({"a": tensor()}, bytes(8), length=2**21), "its header has 2097152 bytes"),
        (safetensors_file({"a": tensor()}, bytes(7)), ""),
        (safetensors_file({"a": tensor()}, bytes(9)), ""),
        (safetensors_file({"a": tensor(), "b": tensor()}, bytes(8)), ""),
        (safetensors_file({"a": tensor(), "b": tensor(start=4, stop=12)}, bytes(12)), ""),
        (safetensors_file({"a": tensor(shape=(2**40,))}, bytes(8)), ""),
        (safetensors_file({"a": tensor(shape=(2**33, 2**33))}, bytes(8)), ""),
        (safetensors_file({"a": tensor(start=8, stop=0)}, bytes(8)), ""),
        (safetensors_file({"a": {}}, bytes(8)), ""),
        (safetensors_file(b'{"a":' * 300_000), "header"),
        (safetensors_file(b"{" * 100_000), ""),
        (safetensors_file({"a": tensor("I64", (1,))}, bytes(8)), "a has the type I64. Save it as F32"),
        (safetensors_file({"a": tensor("BF16", (4,))}, bytes(8)), "a has the type BF16. Save it as F32"),
        (
            safetensors_file({"a": tensor()}, struct.pack("<ff", 1, float("inf"))),
            "a contains numbers that are not finite",
        ),
        (
            safetensors_file({"a": tensor("F64", (1,))}, struct.pack("<d", 1e300)),
            "a contains numbers that are not finite",
        ),
        (safetensors_file({"r.running_var": tensor()}, struct.pack("<ff", 1, -1)), "contains negative variances"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value[:20],
)
def test_malformed_safetensors_file_is_rejected(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "weights"
    path.write_bytes(content)
    message = refusal(path)
    assert f"{path} is corrupt, or not a weight file of a model: " in message and reason in message


def test_truncated_file_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    for content in (safetensors.numpy.save(WEIGHTS), params_file(*WEIGHTS.items())):
        for length in (0, 4, 8, 9, 20, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:length])
            refusal(path)


def params_file(*arrays: tuple[str, np.ndarray], **changes: int) -> bytes:
    """Lay out a parameter file by MXNet's source (NDArray::Save); `changes` state something else than what is there."""
    stated = {"count": len(arrays), "magic": 0xF993FAC9, "storage": 0, "kind": 0, "dimension": -1, "names": len(arrays)}
    stated |= changes
    content = struct.pack("<QQQ", 0x112, 0, stated["count"])
    for _, array in arrays:
        shape = [stated["dimension"] if stated["dimension"] >= 0 else size for size in array.shape]
        content += struct.pack("<Iii", stated["magic"], stated["storage"], len(shape))
        content += struct.pack(f"<{len(shape)}q", *shape) + struct.pack("<iii", 1, 0, stated["kind"]) + array.tobytes()
    content += struct.pack("<Q", stated["names"])
    return content + b"".join(struct.pack("<Q", len(name)) + name.encode() for name, _ in arrays)


def test_parameter_file_is_read_without_mxnet(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(params_file(*WEIGHTS.items()))
    read = read_weights(path, "")
    assert read.keys() == WEIGHTS.keys()
    assert all(np.array_equal(read[name], array) for name, array in WEIGHTS.items())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"count": 2**40}, "it specifies 1099511627776 arrays"),
        ({"count": 9000}, ""),
        ({"dimension": 2**40}, "bytes are missing"),
        ({"dimension": 0}, "of an unsupported kind (magic number 0x0"),
        ({"kind": 4}, "has the type int32. Save it as float32"),
        ({"kind": 77}, "of type 77"),
        ({"storage": 1}, "of an unsupported kind"),
        ({"magic": 7}, "of an unsupported kind"),
        ({"names": 2**40}, "it specifies 1099511627776 names"),
        ({"names": 1}, "it has 2 arrays but 1 names"),
    ],
)
def test_malformed_parameter_file_is_rejected(tmp_path: Path, changes: dict[str, int], reason: str) -> None:
    path = tmp_path / "weights"
    path.write_bytes(params_file(*WEIGHTS.items(), **changes))
    assert reason in refusal(path)


def test_parameter_file_with_other_content_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(params_file(*WEIGHTS.items()) + b"more")
    assert "4 bytes follow the last name" in refusal(path)
    path.write_bytes(params_file(("a", np.ones((0, 3), np.float32))))
    assert "an array of the shape (0, 3)" in refusal(path)
    path.write_bytes(params_file(("a", np.ones(2, np.float16)), kind=12))
    assert "a has the type [('bfloat16', '<u2')]. Save it as float32" in refusal(path)
    path.write_bytes(params_file(("a", np.ones(1, np.float32)), ("a", np.ones(1, np.float32))))
    assert "it has 2 arrays but 1 different names" in refusal(path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_pickles_are_rejected_without_reading_them(tmp_path: Path, zipped: bool, protocol: int) -> None:
    path, ran = tmp_path / "model.safetensors", tmp_path / "ran"
    content = pickle.dumps({"conv1.weight": _Touch(str(ran))}, protocol)
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", content)
    else:
        path.write_bytes(content)
    assert refusal(path) == f"{path} is a PyTorch pickle, which can execute any code when it is read. Use another."
    assert not ran.exists() and is_weight_file(path)


class _Touch:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({}, "a zip with 0 .params files"),
        ({"a.params": b"x", "b.params": b"x"}, "a zip with 2 .params files"),
        ({"a.params": b"another file"}, "it does not start like an MXNet parameter file"),
    ],
)
def test_zip_must_contain_one_parameter_file(tmp_path: Path, members: dict[str, bytes], reason: str) -> None:
    path = tmp_path / "weights"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "")
        archive.writestr("__MACOSX/._a.params", "")
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ClientError, match=f"{path} .*{reason}"):
        read_weights(path, "Use another.")


def test_too_large_or_corrupt_zip_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.params", bytes(3_000_000))
    monkeypatch.setattr("container.mx.weights.zipped.LARGEST", 2_000_000)
    with pytest.raises(ClientError, match=r"contains 3000000 bytes\. The limit of a weight file is 2000000 bytes"):
        read_weights(path, "Use another.")
    monkeypatch.setattr("container.mx.weights.zipped.LARGEST", 1_000)
    with pytest.raises(ClientError, match=r"has \d+ bytes\. The limit of a weight file is 1000 bytes"):
        read_weights(path, "Use another.")
    monkeypatch.undo()
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ClientError, match=r"is a corrupt zip: .*\. Download it again"):
        read_weights(path, "Use another.")


@pytest.mark.parametrize("content", [b"", b"PNG", b"\x1f\x8b\x08 gzip", b"\x89HDF\r\n\x1a\n", bytes(100)])
def test_other_files_are_not_weight_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights").write_bytes(content)
    assert not is_weight_file(tmp_path / "weights")
    assert "is not a weight file. Use another." in refusal(tmp_path / "weights")
