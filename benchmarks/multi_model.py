"""A multi-model endpoint with more models than fit in its memory: `python -m benchmarks.multi_model`.

8 clients send requests to random models. Prints the statuses, the number of loads, how many loads a server would need
that retains the most recently used models, and the ratio to the throughput of that server, with the measured times.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shlex
import statistics
import tempfile
import threading
from collections import Counter, OrderedDict
from collections.abc import Hashable
from pathlib import Path

from benchmarks.support.images import make_image
from benchmarks.support.models import write_model
from benchmarks.support.servers import SERVE, Server, format_counts, run_clients, running

CLIENTS = 8
_LOADED = re.compile(r" is ready after ([\d.]+) s")


def main() -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(description="Measure a multi-model endpoint with little memory.")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--models", type=int, default=16)
    parser.add_argument("--fit", type=int, default=4, help="models that fit in the memory (%(default)s)")
    parser.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("HEIGHT", "WIDTH"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base, log = Path(folder), Path(folder, "log")
        write_model(base / "model", backbone="resnet-18", classes=5)
        memory = str(_model_megabytes(base) * arguments.fit + 30)  # one more model does not fit
        command = ["sh", "-c", f"exec {shlex.join(SERVE)} > {shlex.quote(str(log))} 2>&1"]
        with running(command, base, SAGEMAKER_MULTI_MODEL="true", MODEL_MEMORY_MB=memory) as server:
            for number in range(arguments.models):
                body = json.dumps({"model_name": f"m{number}", "url": str(base / "model")})
                server.request("POST", "/models", body.encode(), accept="*/*")
            before = len(_LOADED.findall(log.read_text()))
            image = make_image(*arguments.size)
            requested, statuses = _send_images(server, arguments.models, image, arguments.seconds)
            loads = [float(seconds) for seconds in _LOADED.findall(log.read_text())][before:]
    minimum = _loads_of_lru(requested, arguments.fit)
    other_seconds = arguments.seconds - sum(loads)
    share = (other_seconds + minimum * statistics.mean(loads or [0.0])) / arguments.seconds
    median = statistics.median(loads or [0.0])
    print(f"{format_counts(statuses)}; {len(loads)} loads of {median:.2f} s, most recently used: {minimum} loads")
    print(f"{statuses[200] / arguments.seconds:.2f} responses/s, {share:.2f} × most recently used")


def _model_megabytes(base: Path) -> int:
    from container.engines.openvino import OpenVinoEngine

    return OpenVinoEngine(base / "model/model.onnx", threads=1).memory // 2**20


def _send_images(server: Server, models: int, image: bytes, seconds: float) -> tuple[list[int], Counter[Hashable]]:
    """Send requests, and return the requested models in order, and the statuses."""
    requested: list[int] = []
    rng, lock = random.Random(0), threading.Lock()

    def request(client: int) -> Hashable:
        with lock:
            model = rng.randrange(models)
            requested.append(model)
        return server.send("POST", f"/models/m{model}/invoke", image)[0]

    return requested, run_clients(CLIENTS, seconds, request)


def _loads_of_lru(requested: list[int], fit: int) -> int:
    """Return the loads of a server that retains the most recently used models."""
    loaded: OrderedDict[int, None] = OrderedDict()
    loads = 0
    for model in requested:
        if model in loaded:
            loaded.move_to_end(model)
            continue
        loads += 1
        loaded[model] = None
        if len(loaded) > fit:
            loaded.popitem(last=False)
    return loads


if __name__ == "__main__":
    main()
