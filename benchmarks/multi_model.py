"""A multi-model endpoint with more models than there is room for: `python -m benchmarks.multi_model`.

Eight clients ask for any of the models, drawn at random, for two minutes. Printed are the answers by status, how many
models were loaded, how many a server would have loaded that keeps the last used ones of the same requests, and from
both numbers how much of such a server's throughput that is, a load and an answer taking what they took here.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import shlex
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, OrderedDict
from contextlib import closing
from pathlib import Path

from benchmarks.serving import PATIENCE, Server, make_archive, make_images

CLIENTS = 8
_LOADED = re.compile(r" is ready after ([\d.]+) s")


def main() -> None:
    """Measure, and print what came of it."""
    parser = argparse.ArgumentParser(description="Share a server's memory among many models.")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--models", type=int, default=16)
    parser.add_argument("--room", type=int, default=4, help="models that there is room for (%(default)s)")
    parser.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("HEIGHT", "WIDTH"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        megabytes = _make_model(root) * arguments.room + 30  # one more would not fit
        log = root / "log"
        command = f"exec {shlex.quote(sys.executable)} serve > {shlex.quote(str(log))} 2>&1"
        server = Server(["sh", "-c", command], root, root, SAGEMAKER_MULTI_MODEL="true", MODEL_MEMORY_MB=str(megabytes))
        try:
            _load(server, root, arguments.models)
            before = len(_LOADED.findall(log.read_text()))
            image = make_images(1, *arguments.size)[0]
            asked, statuses = _ask_for(server, arguments.models, image, arguments.seconds)
            loads = [float(seconds) for seconds in _LOADED.findall(log.read_text())][before:]
        finally:
            server.process.terminate()
            server.process.wait()
    least = _loads_of_lru(asked, arguments.room)
    counts = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items(), key=str))
    rest = arguments.seconds - sum(loads)
    share = arguments.seconds / (rest + least * statistics.mean(loads or [0.0]))
    print(f"{counts}; {len(loads)} loads of {statistics.median(loads or [0.0]):.2f} s, the last used ones' {least}")
    print(f"{statuses[200] / arguments.seconds:.2f} answers/s, {1 / share:.2f} of the throughput with so many loads")


def _make_model(root: Path) -> int:
    """Write an archive with random weights; returns the megabytes that it takes once it is loaded."""
    from container.engines.openvino import OpenVinoEngine

    make_archive(root, "resnet-18", 5)
    return OpenVinoEngine(root / "model" / "model.onnx", threads=1).memory // 2**20


def _load(server: Server, root: Path, count: int) -> None:
    for number in range(count):
        body = json.dumps({"model_name": f"m{number}", "url": str(root / "model")})
        if (status := _post(server, "/models", body.encode())) != 200:
            raise SystemExit(f"POST /models answered {status}")


def _post(server: Server, path: str, body: bytes) -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
        connection.request("POST", path, body, {"Content-Type": "image/jpeg"})
        response = connection.getresponse()
        response.read()
        return response.status


def _ask_for(server: Server, models: int, image: bytes, seconds: float) -> tuple[list[int], Counter[int]]:
    """Let clients ask for so many seconds; returns the models in the order in which they were asked, and statuses."""
    asked: list[int] = []
    statuses: Counter[int] = Counter()
    rng, lock, end = random.Random(0), threading.Lock(), time.monotonic() + seconds

    def keep_asking() -> None:
        while time.monotonic() < end:
            with lock:
                model = rng.randrange(models)
                asked.append(model)
            status = _post(server, f"/models/m{model}/invoke", image)
            with lock:
                statuses[status] += 1

    threads = [threading.Thread(target=keep_asking) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return asked, statuses


def _loads_of_lru(asked: list[int], room: int) -> int:
    """Return how many models a server would load that keeps the last used ones."""
    kept: OrderedDict[int, None] = OrderedDict()
    loads = 0
    for model in asked:
        if model in kept:
            kept.move_to_end(model)
            continue
        loads += 1
        kept[model] = None
        if len(kept) > room:
            kept.popitem(last=False)
    return loads


if __name__ == "__main__":
    main()
