from __future__ import annotations

import io
import itertools

import numpy as np
import pytest

from container.codecs.chunks import open_buffers

SOME = np.random.default_rng(0).bytes(2**21)


@pytest.mark.parametrize("size", [0, 100, 2**21])
def test_pieces_read_as_one_file(size: int) -> None:
    data = SOME[:size]
    cuts = [0, 0, 1, 9, size // 3, size // 3, size - 1, size] if size else [0, 0]
    file = open_buffers([memoryview(data)[start:end] for start, end in itertools.pairwise(cuts)])
    assert file.read(16) == data[:16] and file.tell() == len(data[:16])
    assert file.read() == data[16:] and file.read() == b""
    for place in (0, 5, size // 3 - 1 if size else 0, size + 10):
        assert file.seek(place) == place and file.read(70_000) == data[place : place + 70_000]
    assert file.seek(0, io.SEEK_END) == size
