"""`GET /`: what programs are told of the model and its limits."""

from __future__ import annotations

import dataclasses
from concurrent.futures import Future

import pytest

from container.artifact.classes import ClassEntry
from container.geometry.windows import Windows
from container.serving.app import create_app
from container.serving.models import Model, create_model
from tests.unit.serving.test_serving import SETTINGS, FakeEngine, FakePlanner, error_of, loaded
from tests.unit.serving.test_serving_models import Disk, load

MODEL: Future[Model] = Future()
MODEL.set_result(
    create_model(FakeEngine(), {1: ClassEntry("cat", (10, 20, 30))}, {"algorithm": "fcn", "backbone": "resnet-50"})
)


@pytest.mark.parametrize("accept", ["application/json", "*/*", "text/html, */*;q=0.8", None])
def test_a_model_is_described(accept: str | None) -> None:
    settings = dataclasses.replace(SETTINGS, max_response=5_000)
    headers = {} if accept is None else {"Accept": accept}
    answer = create_app(MODEL, settings).test_client().get("/", headers=headers)
    assert answer.json == {
        "model": {"algorithm": "fcn", "backbone": "resnet-50"},
        "num_classes": 2,
        "classes": [{"id": 0}, {"id": 1, "name": "cat", "color": "#0a141e"}],
        "engine": "openvino",
        "precision": "float32",
        "accept": [
            "image/png",
            "application/x-protobuf",
            "application/x-recordio-protobuf",
            "application/x-npy",
            "application/json",
        ],
        "tta": ["flip", "scales", "flip,scales"],
        "limits": {"body_bytes": 100_000, "pixels": 10_000, "response_bytes": 5_000, "seconds": 60},
    }
    assert "unused" not in answer.text  # the model's directory


def test_windows_are_described() -> None:
    engine = FakeEngine()
    engine.planner = FakePlanner()
    engine.planner.windows = Windows(480, 0.25)
    answer = create_app(loaded(engine), SETTINGS).test_client().get("/")
    assert answer.json["windows"] == {"side": 480, "overlap": 0.25}


def test_another_form_is_406() -> None:
    answer = create_app(MODEL, SETTINGS).test_client().get("/", headers={"Accept": "text/html"})
    assert (answer.status_code, error_of(answer)) == (406, "Accept: text/html is not available; application/json is")


def test_before_the_model_is_loaded_it_is_503() -> None:
    assert create_app(Future(), SETTINGS).test_client().get("/").status_code == 503


def test_a_multi_model_endpoint_lists_its_models() -> None:
    client = Disk().client()
    load(client, "1")
    answer = client.get("/")
    assert answer.json["models"] == ["1"]
    assert answer.json["limits"]["pixels"] > 0 and "/" not in "".join(answer.json["models"])
