"""Serving on GPUs: one worker each, every one of them on its own card."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from tests.gpu.cards import used_megabytes
from tests.job.server import Server, children, noise, write_model

LEAST_MEGABYTES = 200  # what CUDA and the weights take on a card at least


def test_one_worker_per_gpu_answers(tmp_path: Path) -> None:
    write_model(tmp_path)
    before = used_megabytes()
    with Server(tmp_path, tmp_path / "log") as server:
        taken = [after - earlier for after, earlier in zip(used_megabytes(), before, strict=True)]
        assert len(children(server.process.pid)) == len(before)
        assert min(taken) > LEAST_MEGABYTES, taken
        with ThreadPoolExecutor(4 * len(before)) as pool:
            answers = list(pool.map(server.invoke, [noise(120, 160)] * (4 * len(before))))
    assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers][:3]
    masks = [np.asarray(Image.open(io.BytesIO(answer.content))) for answer in answers]
    assert masks[0].shape == (120, 160)
    assert all((mask == masks[0]).mean() > 0.99 for mask in masks)
