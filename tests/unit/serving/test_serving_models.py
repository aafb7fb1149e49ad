"""The routes of multi-model endpoints, with engines that answer their own name's number."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import random
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from container.artifact.check import write_check
from container.artifact.classes import ClassEntry, read_classes
from container.engines.protocol import CancellationToken, Plan
from container.errors import ClientError
from container.serving.app import create_app
from container.serving.memory_budget import MemoryBudget, MemoryEstimate, Reservation
from container.serving.model_store import ModelStore, estimate_memory
from container.serving.models import Model, create_model, open_model
from container.serving.requests.deadline import RequestDeadline
from tests.conftest import wait_until
from tests.unit.serving.test_serving import SETTINGS, FakeEngine, error_of, picture


class Numbered(FakeEngine):
    memory = 10

    def __init__(self, number: int) -> None:
        self.number = number

    def mask(self, image: np.ndarray, plan: Plan | None = None, stop: CancellationToken | None = None) -> np.ndarray:
        return np.full(image.shape[:2], self.number, np.uint8)


class Disk:
    """Directories named by numbers; every model takes 10 bytes of the budget for models."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.classes: dict[int, ClassEntry] = {}
        self.size = 10

    def measure(self, model_dir: Path) -> tuple[int, int]:
        return self.size, 0

    def open(self, model_dir: Path) -> Model:
        if not model_dir.name.isdecimal():
            raise ClientError(f"{model_dir} contains no model")
        self.opened.append(model_dir.name)
        return create_model(Numbered(int(model_dir.name)), self.classes)

    def client(self, budget: int = 30, **changes: Any) -> FlaskClient:
        self.budget, executor = MemoryBudget(), ThreadPoolExecutor(4)
        store = ModelStore(self.open, self.measure, self.budget, executor, budget)
        settings = dataclasses.replace(SETTINGS, **changes)
        return create_app(store, settings, executor=executor, budget=self.budget).test_client()


def load(client: FlaskClient, name: str, url: str | None = None) -> TestResponse:
    return client.post("/models", json={"model_name": name, "url": url or f"/models/{name}"})


def invoke(client: FlaskClient, name: str) -> int | tuple[int, ...]:
    """The class that a model answers, or the status when it does not."""
    answer = client.post(f"/models/{name}/invoke", data=picture(), content_type="image/png", buffered=True)
    return Image.open(io.BytesIO(answer.data)).getpixel((0, 0)) if answer.status_code == 200 else (answer.status_code,)


def test_a_models_life() -> None:
    client = Disk().client()
    assert client.get("/ping").status_code == 200
    assert client.get("/models").json == {"models": []}
    assert load(client, "7").status_code == 200
    described = {"modelName": "7", "modelUrl": "/models/7"}
    assert client.get("/models").json == {"models": [described]}
    assert client.get("/models/7").json == described
    assert invoke(client, "7") == 7
    assert load(client, "7").status_code == 409
    assert client.delete("/models/7").status_code == 200
    assert invoke(client, "7") == (404,)
    assert client.get("/models/7").status_code == client.delete("/models/7").status_code == 404


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "",
        '{"model_name": "a"}',
        '{"model_name": 1, "url": "x"}',
        '{"model_name": "a", "url": "x", "url": "y"}',
        "[]",
        "[" * 100_000,
        '{"model_name": ' * 2_000,
        "9" * 5_000,
        '{"model_name": "a", "url": "\xff"}'.encode("latin-1"),
    ],
)
def test_a_wrong_load_is_400(content: str | bytes) -> None:
    answer = Disk().client().post("/models", data=content, content_type="application/json")
    assert answer.status_code == 400
    assert "model_name" in error_of(answer)


def test_a_load_request_of_megabytes_is_413() -> None:
    client = Disk().client(max_body=2**20)
    answer = client.post("/models", data=b"[" * 300_000, content_type="application/json")
    assert (answer.status_code, "The body is larger than 262144 bytes. Send JSON" in error_of(answer)) == (413, True)
    assert "model_name" in error_of(answer)


def test_an_unusable_model_is_400_and_takes_no_memory() -> None:
    client = Disk().client(budget=10)
    answer = load(client, "broken")
    assert (answer.status_code, "broken contains no model" in error_of(answer)) == (400, True)
    assert load(client, "1").status_code == 200


def test_the_least_recently_used_sleeps_and_wakes() -> None:
    disk = Disk()
    client = disk.client(budget=20)
    for name in ("1", "2"):
        load(client, name)
    invoke(client, "1")
    assert load(client, "3").status_code == 200  # puts 2 to sleep
    assert (invoke(client, "1"), disk.opened) == (1, ["1", "2", "3"])
    assert (invoke(client, "2"), disk.opened) == (2, ["1", "2", "3", "2"])


def test_a_model_without_room_is_507() -> None:
    answer = load(Disk().client(budget=9), "1")
    assert answer.status_code == 507
    assert "not enough memory for the model 1" in error_of(answer)


def test_request_to_an_unloaded_model_waits_until_others_are_done() -> None:
    busy, go_on = threading.Event(), threading.Event()

    class InFlightCounter(Numbered):
        def mask(
            self, image: np.ndarray, plan: Plan | None = None, stop: CancellationToken | None = None
        ) -> np.ndarray:
            busy.set()
            assert go_on.wait(30)
            return super().mask(image)

    class OneHeld(Disk):
        def open(self, model_dir: Path) -> Model:
            return create_model(InFlightCounter(2), {}) if model_dir.name == "2" else super().open(model_dir)

    client_of = OneHeld().client(budget=10).application.test_client
    for name in ("1", "2"):
        assert load(client_of(), name).status_code == 200  # there is room for one: 1 is asleep
    with ThreadPoolExecutor(2) as pool:
        try:
            holder = pool.submit(invoke, client_of(), "2")
            assert busy.wait(30)
            assert load(client_of(), "3").status_code == 507
            waker = pool.submit(invoke, client_of(), "1")
            assert not wait([waker], timeout=0.2).done
        finally:
            go_on.set()
        assert (holder.result(), waker.result()) == (2, 1)


def test_invocations_is_unknown_to_a_multi_model_endpoint() -> None:
    assert Disk().client().post("/invocations", data=picture(), content_type="image/png").status_code == 404


def test_loading_unloading_and_asking_at_once() -> None:
    client_of = Disk().client(budget=30).application.test_client
    rng = random.Random(3)
    steps = [(rng.choice(["load", "unload", "invoke", "invoke"]), str(rng.randrange(5))) for _ in range(400)]

    def step(action_and_name: tuple[str, str]) -> None:
        action, name = action_and_name
        if action == "load":
            assert load(client_of(), name).status_code in (200, 409, 507)
        elif action == "unload":
            assert client_of().delete(f"/models/{name}").status_code in (200, 404)
        else:
            assert invoke(client_of(), name) in (int(name), (404,))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(step, steps))
    client = client_of()
    for entry in client.get("/models").json["models"]:
        assert client.delete(f"/models/{entry['modelName']}").status_code == 200
    assert [load(client, name).status_code for name in ("1", "2", "3")] == [200] * 3  # nothing has leaked
    assert [invoke(client, name) for name in ("1", "2", "3")] == [1, 2, 3]


def test_more_models_than_room_are_all_answered() -> None:
    class Slow(Disk):
        def open(self, model_dir: Path) -> Model:
            threading.Event().wait(0.02)
            return super().open(model_dir)

    disk = Slow()
    client_of = disk.client(budget=20).application.test_client
    for name in "1234":
        assert load(client_of(), name).status_code == 200
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda name: invoke(client_of(), name), "123412341234"))
    assert answers == [1, 2, 3, 4] * 3
    assert disk.budget.reserved["models"] == 20
    assert disk.budget.reserved.total() == 20


def test_an_idle_model_makes_room_for_an_image() -> None:
    disk = Disk()
    client = disk.client(budget=30)
    for name in ("1", "2"):
        load(client, name)
    disk.budget.total = 8000  # of which 1000 are kept for bodies; an image of six pixels takes 6000
    disk.budget.reserved["answers"] = 985  # being sent to somebody: one of the models, 10 bytes each, has to go
    assert invoke(client, "1") == 1
    assert disk.budget.reserved["models"] == 10
    disk.budget.reserved["answers"] = 0
    assert (invoke(client, "2"), disk.opened) == (2, ["1", "2", "2"])


def test_image_that_never_fits_in_memory_with_its_model_is_413() -> None:
    disk = Disk()
    client = disk.client(budget=30)
    load(client, "1")
    disk.budget.total = 6000 * 8 // 7  # room for its six pixels, but not for the model too
    assert invoke(client, "1") == (413,)
    disk.budget.total += 12
    assert invoke(client, "1") == 1


@pytest.mark.parametrize("name", ["", "..", "a/b", "x" * 1025, "new\nline"])
def test_a_name_that_no_address_can_hold_is_400(name: str) -> None:
    answer = load(Disk().client(), name, "/models/1")
    assert answer.status_code == 400
    assert "model_name must be 1 to 1024 printable characters without /" in error_of(answer)


@pytest.mark.parametrize("url", ["x" * 5000, "a\0b", "/nowhere"])
def test_url_that_is_not_a_directory_is_400(url: str) -> None:
    budget, executor = MemoryBudget(), ThreadPoolExecutor(1)
    store = ModelStore(Disk().open, estimate_memory, budget, executor)
    answer = load(create_app(store, SETTINGS, executor=executor, budget=budget).test_client(), "a", url)
    assert answer.status_code == 400
    assert "contains no model: model_best.params is missing" in error_of(answer)
    assert budget.reserved.total() == 0


def test_a_model_that_no_longer_loads_is_an_error_of_its_own_requests_only(caplog: pytest.LogCaptureFixture) -> None:
    class Vanishing(Disk):
        def open(self, model_dir: Path) -> Model:
            if model_dir.name in self.opened:
                raise ClientError(f"{model_dir} contains no model")
            return super().open(model_dir)

    client = Vanishing().client(budget=10)
    for name in ("1", "2"):
        load(client, name)  # puts the first to sleep
    caplog.clear()
    answer = client.post("/models/1/invoke", data=picture(), content_type="image/png")
    assert (answer.status_code, "/models" in error_of(answer)) == (400, False)
    assert "the model 1 can no longer be loaded: its files have changed" in error_of(answer)
    assert [record.getMessage() for record in caplog.records if record.name == "gunicorn.error"] == [
        "the model 1 cannot be loaded: /models/1 contains no model"
    ]
    assert load(client, "3").status_code == 200
    assert invoke(client, "3") == 3


def names_of(client: FlaskClient, name: str) -> list[str | None] | int:
    """The class names in a model's answer, or the status when it does not answer."""
    headers = {"Accept": "application/json"}
    answer = client.post(f"/models/{name}/invoke", data=picture(), content_type="image/png", headers=headers)
    return [entry.get("name") for entry in answer.json["classes"]] if answer.status_code == 200 else answer.status_code


def test_a_model_whose_class_names_changed_while_it_slept_answers_with_the_new_ones() -> None:
    disk = Disk()
    client = disk.client(budget=10)
    disk.classes = {1: ClassEntry("old")}
    load(client, "1")
    assert names_of(client, "1") == ["old"]
    load(client, "2")  # puts the first to sleep
    disk.classes = {1: ClassEntry("new")}
    assert names_of(client, "1") == 503  # its form was chosen before the model was loaded
    assert names_of(client, "1") == ["new"]
    load(client, "3")
    assert names_of(client, "1") == ["new"]  # wakes unchanged


def test_a_model_that_became_larger_while_it_slept_takes_what_it_takes() -> None:
    disk = Disk()
    client = disk.client(budget=30)
    for name in "1234":
        assert load(client, name).status_code == 200
    disk.size = 25
    assert invoke(client, "1") == 1  # the three others had to go, as long as its size was not known
    assert disk.budget.reserved["models"] == 10
    assert (invoke(client, "4"), disk.opened) == (4, ["1", "2", "3", "4", "1", "4"])


def test_model_with_deleted_files_is_an_error_without_paths(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model_best.params").write_bytes(b"weights")
    (tmp_path / "1" / "model.onnx").write_bytes(b"graph")
    budget, executor = MemoryBudget(), ThreadPoolExecutor(1)
    store = ModelStore(Disk().open, estimate_memory, budget, executor, sum(estimate_memory(tmp_path / "1")))
    client = create_app(store, SETTINGS, executor=executor, budget=budget).test_client()
    (tmp_path / "2").symlink_to(tmp_path / "1")
    for name in "12":
        assert load(client, name, str(tmp_path / name)).status_code == 200
    budget.reserve("models", estimate_memory(tmp_path / "1")[0] - 10)  # loading one requires unloading the other
    with budget.changed:
        store._unload(store._entries["1"])
    (tmp_path / "1" / "model_best.params").unlink()
    answer = client.post("/models/1/invoke", data=picture(), content_type="image/png")
    assert (answer.status_code, str(tmp_path) in error_of(answer)) == (400, False)


def test_a_graph_larger_than_the_weights_counts(tmp_path: Path) -> None:
    (tmp_path / "model_best.params").write_bytes(bytes(1000))
    (tmp_path / "model.onnx").write_bytes(bytes(1000))
    usual = estimate_memory(tmp_path)[0]
    (tmp_path / "model.onnx").write_bytes(bytes(10**8 + 1000))
    assert estimate_memory(tmp_path)[0] - usual > 10**8


def test_a_weight_file_of_gigabytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hyperparams.json").write_text('{"num_classes": 3, "algorithm": "fcn", "backbone": "resnet-50"}')
    for name in ("model_best.params", "model.onnx", "model.int8.onnx"):
        (tmp_path / "model_best.params").touch()
        with (tmp_path / name).open("wb") as file:
            file.truncate(3 * 2**30)
        with pytest.raises(ClientError, match=rf"^{name} of {tmp_path} has 3221225472 bytes"):
            open_model(tmp_path, SETTINGS)
        (tmp_path / name).unlink()


@pytest.mark.parametrize("name", ["hyperparams.json", "classes.json", "check.json", "model_best.params", "model.onnx"])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hyperparams.json").write_text('{"num_classes": 3, "algorithm": "fcn", "backbone": "resnet-50"}')
    for other in ("model_best.params", "model.onnx"):
        (tmp_path / other).write_bytes(b"x")
    (tmp_path / "classes.json").write_text("[]")
    if name == "check.json" or name == "model_best.params":
        write_check(tmp_path, lambda picture: np.full((3, 64, 64), 1 / 3, np.float32))
    whole = Path.open

    def refuse(path: Path, *arguments: Any, **named: Any) -> Any:
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", refuse)  # root may read every file
    if name == "classes.json":
        with pytest.raises(ClientError, match=f"{name} cannot be read: Permission denied"):
            read_classes(tmp_path)
        return
    with pytest.raises(ClientError, match=f"{name}.* cannot be read: Permission denied"):
        open_model(tmp_path, SETTINGS)


def test_only_the_last_used_idle_model_retains_memory() -> None:
    released: list[int] = []

    class Keeping(Numbered):
        def release(self) -> None:
            released.append(self.number)

    def open_(model_dir: Path) -> Model:
        return create_model(Keeping(int(model_dir.name)), {})

    budget, deadline = MemoryBudget(), RequestDeadline(60)
    store = ModelStore(open_, lambda model_dir: (10, 0), budget, ThreadPoolExecutor(1))
    for name in "123":
        store.load(name, Path(name), deadline)

    def use(name: str) -> contextlib.AbstractContextManager[object]:
        return store.source(name).use(Reservation(budget), MemoryEstimate(1), deadline)

    with use("1"):
        pass
    with use("1"):
        pass
    assert released == []
    with use("2"):
        wait_until(lambda: released == [1], 10)  # when another one is used
        with use("3"):
            pass
        assert released == [1]
    wait_until(lambda: released == [1, 2], 10)  # when it is no longer used, for 3 was used after it
