from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from container.errors import ClientError
from container.serving import gunicorn_conf
from container.serving import settings as serve_settings
from container.serving.settings import ServeSettings


@pytest.mark.parametrize(("gpus", "engine", "workers"), [(0, "openvino", 1), (1, "mxnet", 1), (4, "mxnet", 4)])
def test_auto_is_mxnet_with_a_worker_per_gpu_or_else_openvino(
    monkeypatch: pytest.MonkeyPatch, gpus: int, engine: str, workers: int
) -> None:
    visible = tuple(map(str, range(gpus)))
    monkeypatch.setattr(serve_settings, "visible_gpus", lambda selected: visible)
    monkeypatch.setattr(serve_settings, "select_gpus", lambda visible: (visible, ""))
    settings = ServeSettings.read({})
    assert (settings.engine, settings.workers) == (engine, workers)
    assert ServeSettings.read({"SERVE_ENGINE": "OpenVINO"}).workers == 1
    assert ServeSettings.read({"SERVE_ENGINE": "mxnet", "MODEL_SERVER_WORKERS": "3"}).workers == 3


@pytest.mark.parametrize(
    ("selected", "engine", "workers", "used"),
    [((), "openvino", 1, "OpenVINO on the CPUs"), (("1", "3"), "mxnet", 2, "2 of 4 GPUs")],
)
def test_auto_avoids_unsupported_gpus_with_one_warning(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    selected: tuple[str, ...],
    engine: str,
    workers: int,
    used: str,
) -> None:
    monkeypatch.setattr(serve_settings, "visible_gpus", lambda selected: tuple((selected or "0,1,2,3").split(",")))
    monkeypatch.setattr(serve_settings, "select_gpus", lambda visible: (selected, "a reason and a fix."))
    settings = ServeSettings.read({})
    assert (settings.engine, settings.gpus, settings.workers) == (engine, selected, workers)
    for other in ({}, {"CUDA_VISIBLE_DEVICES": selected[-1]} if selected else {}):  # gunicorn, and a worker
        again = ServeSettings.read({"CUDA_VISIBLE_DEVICES": "0,1,2,3"} | settings.resolved_variables | other)
        assert (again.engine, again.workers, len(again.gpus) > 0) == (engine, workers, bool(selected))
    assert caplog.messages == [f"SERVE_ENGINE=auto uses {used}: a reason and a fix."]


def test_engine_mxnet_is_used_on_unsupported_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_settings, "visible_gpus", lambda selected: ("0", "1"))
    monkeypatch.setattr(serve_settings, "select_gpus", lambda visible: ((), "unsupported"))
    settings = ServeSettings.read({"SERVE_ENGINE": "mxnet"})
    assert (settings.engine, settings.workers) == ("mxnet", 2)


@pytest.mark.parametrize(
    ("name", "value", "choices"),
    [
        ("SERVE_ENGINE", "onnx", "auto, openvino, mxnet"),
        ("SERVE_PRECISION", "half", "auto, float32, bfloat16, int8, float16"),
        ("LOG_FORMAT", "xml", "json, text"),
        ("SERVE_METRICS", "yes", "0, 1"),
        ("SERVE_UI", "on", "0, 1"),
        ("EXIF_ORIENTATION", "auto", "ignore, apply"),
    ],
)
def test_a_value_out_of_the_choices_is_named(name: str, value: str, choices: str) -> None:
    with pytest.raises(ClientError, match=f"{name} must be one of {choices}, not '{value}'"):
        ServeSettings.read({name: value})


def test_what_is_off_by_default() -> None:
    settings = ServeSettings.read({"MAX_RESPONSE_BYTES": " "})
    assert (settings.max_response, settings.metrics, settings.multi_model) == (None, False, False)
    assert (settings.ui, ServeSettings.read({"SERVE_UI": "1"}).ui) == (False, True)
    assert (settings.log_format, settings.precision, settings.exif_orientation) == ("json", "auto", "ignore")
    assert ServeSettings.read({"EXIF_ORIENTATION": " Apply"}).exif_orientation == "apply"


def test_a_multi_model_endpoint_is_one_process_with_a_budget() -> None:
    variables = {"SAGEMAKER_MULTI_MODEL": "true", "MODEL_SERVER_WORKERS": "3", "MODEL_MEMORY_MB": "700"}
    settings = ServeSettings.read(variables)
    assert (settings.multi_model, settings.workers, settings.model_memory) == (True, 1, 700 * 2**20)


def test_a_multi_model_endpoint_has_no_page() -> None:
    with pytest.raises(ClientError, match="SERVE_UI=1 does not support SAGEMAKER_MULTI_MODEL=true"):
        ServeSettings.read({"SAGEMAKER_MULTI_MODEL": "true", "SERVE_UI": "1"})


@pytest.mark.parametrize(("cpus", "slots"), [(1, 1), (2, 1), (4, 1), (8, 2), (16, 4)])
def test_up_to_four_cores_compute_one_image(monkeypatch: pytest.MonkeyPatch, cpus: int, slots: int) -> None:
    monkeypatch.setattr(serve_settings, "cpu_count", lambda: cpus)
    monkeypatch.setattr(serve_settings, "memory_limit", lambda: 2**33)
    settings = ServeSettings.read({"SERVE_ENGINE": "openvino"})
    assert (settings.max_concurrent_inferences, settings.memory, settings.image_memory) == (slots, 2**33, None)
    assert ServeSettings.read({"SERVE_ENGINE": "openvino", "IMAGE_MEMORY_MB": "700"}).image_memory == 700 * 2**20
    assert ServeSettings.read({"SERVE_ENGINE": "mxnet"}).max_concurrent_inferences == 1


def test_the_queue_is_a_third_of_the_timeout() -> None:
    assert ServeSettings.read({}).queue_seconds == 20
    assert ServeSettings.read({"MODEL_SERVER_TIMEOUT": "2"}).queue_seconds == 1
    assert ServeSettings.read({"QUEUE_SECONDS": "7"}).queue_seconds == 7


def test_a_new_worker_takes_the_gpu_that_has_become_free(monkeypatch: pytest.MonkeyPatch) -> None:
    server = SimpleNamespace(WORKERS={7: SimpleNamespace(number=0), 9: SimpleNamespace(number=2)})
    worker = SimpleNamespace()
    gunicorn_conf.pre_fork(server, worker)
    assert worker.number == 1
    for gpus, gpu in ((("0", "1", "2"), "1"), (("2", "GPU-8932"), "GPU-8932"), (("0",), "0"), ((), "unset")):
        settings = ServeSettings(Path("unused"), engine="mxnet", gpus=gpus, workers=3)  # workers share GPUs
        monkeypatch.setattr(gunicorn_conf, "_settings", settings)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "unset")
        gunicorn_conf.post_fork(server, worker)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == gpu


def test_a_host_without_ipv6_is_served_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(gunicorn_conf.socket, "socket", refuse)
    assert gunicorn_conf.listen_addresses(8080) == ["0.0.0.0:8080"]


@pytest.mark.parametrize(("only", "addresses"), [(0, ["[::]:8080"]), (1, ["0.0.0.0:8080", "[::]:8080"])])
def test_where_ipv6_sockets_take_no_ipv4_there_are_two(
    monkeypatch: pytest.MonkeyPatch, only: int, addresses: list[str]
) -> None:
    class Socket(contextlib.nullcontext):
        def __init__(self, family: int) -> None:
            super().__init__(self)

        def bind(self, address: object) -> None:
            pass

        def getsockopt(self, level: int, option: int) -> int:
            return only

    monkeypatch.setattr(gunicorn_conf.socket, "socket", Socket)
    assert gunicorn_conf.listen_addresses(8080) == addresses
