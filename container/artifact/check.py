"""`check.json` in the model directory: expected output of the model, and hashes of its files.

The file contains, as base64, a small image (uint8 RGB 64×64), the mask that the best weights predict for it
(`mask`, uint8 64×64), and their probabilities (`probabilities`, float32 num_classes×8×8) at every ninth pixel. At these
pixels the model output, which has an eighth of the size, is not interpolated. `weights` and `int8` contain fingerprints
of `model_best.params` and of the int8 model that the job approved.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from container.arrays import Array, Float32Array, Uint8Array
from container.artifact import model_directory
from container.artifact.json_files import parse_object, read_limited
from container.errors import ClientError

CHECK = model_directory.CHECK

_SIDE, _STEP = 64, 9
_LEAST = 1e-30  # lower probabilities count as equal
_BLOCKS, _BLOCK = 64, 4096  # number and size in bytes of the blocks in a fingerprint

# Largest accepted difference of the scores, as a share of their spread. Measured: float32 0.0002, bfloat16 up to 0.05,
# int8 up to 0.21 (random weights, which increase errors most). Models of two jobs: 0.2 (same data set) to 2.
_TOLERANCES = {"float32": 0.1, "float16": 0.2, "bfloat16": 0.2, "int8": 0.5}
_LEAST_SPREAD = 0.01
_UNLIKELY_PIXELS = 0.02  # largest share of mask pixels whose class is not a most likely class


@dataclasses.dataclass(frozen=True)
class Check:
    """Expected output for `image`, uint8 RGB (64, 64, 3): `mask`, uint8 (64, 64), and `probabilities`.

    The probabilities are float32 (num_classes, 8, 8). `weights` and `int8` are fingerprints. `int8` is empty if the job
    did not approve an int8 model.
    """

    image: Uint8Array
    mask: Uint8Array
    probabilities: Float32Array
    weights: str
    int8: str

    def describe_difference(self, mask: Uint8Array, probabilities: Float32Array, precision: str) -> str:
        """Describe how a model's output for the image differs; an empty string if rounding explains the difference."""
        expected, tolerance = _scores(self.probabilities), _TOLERANCES[precision]
        if len(probabilities) != len(expected):
            return f"the output has {len(probabilities)} classes instead of {len(expected)}"
        spread = max(_LEAST_SPREAD, float(np.sqrt(np.square(expected).mean())))
        apart = float(np.sqrt(np.square(_scores(probabilities[:, ::_STEP, ::_STEP]) - expected).mean())) / spread
        if not apart <= tolerance:
            return f"the scores differ by {apart:.2f} of their spread, and {precision} rounding explains {tolerance}"
        scores = _scores(probabilities)
        for name, tested in (("expected", self.mask), ("returned", mask)):
            chosen = np.take_along_axis(scores, tested[None].astype(np.int64), axis=0)[0]
            unlikely = float((scores.max(axis=0) - chosen > 4 * tolerance * spread).mean())
            if unlikely > _UNLIKELY_PIXELS:
                return f"{unlikely:.0%} of the pixels in the {name} mask do not have the most likely class"
        return ""


def create_check_image() -> Uint8Array:
    """Return an image with colors, edges, and texture, uint8 RGB (64, 64, 3); it is identical on all machines."""
    y, x = np.mgrid[:_SIDE, :_SIDE]
    image = np.stack([4 * x, 4 * y, 255 - 2 * (x + y)], axis=2)
    image[(x - 42) ** 2 + (y - 22) ** 2 < 250] = (230, 60, 40)
    image[(y >= 40) & (x < 32) & ((x // 4 + y // 4) % 2 == 0)] //= 3
    image += ((x * 37 + y * 101) ^ (x * y))[:, :, None] % 32 - 16
    clipped: Uint8Array = np.clip(image, 0, 255).astype(np.uint8)
    return clipped


def write_check(model_dir: Path, probabilities: Callable[[Uint8Array], Float32Array]) -> None:
    """Write `check.json` for the best weights of `model_dir`; `probabilities` returns float32 (C, H, W) for an image.

    Raises ValueError if the probabilities are not finite.
    """
    image = create_check_image()
    output = probabilities(image)
    if invalid := describe_invalid_values(output):
        raise ValueError(f"the output of the best weights contains {invalid}")
    content = {
        "picture": _write(image),  # codespell:ignore picture
        "mask": _write(output.argmax(axis=0).astype(np.uint8)),
        "num_classes": len(output),
        "probabilities": _write(output[:, ::_STEP, ::_STEP].astype("<f4")),
        "weights": fingerprint(model_dir / model_directory.BEST_WEIGHTS),
    }
    model_directory.write_json(model_dir / CHECK, content)


def approve_int8(model_dir: Path, metrics: Mapping[str, Any]) -> None:
    """Store in `check.json` that the int8 model in `model_dir` is approved, with the metrics behind the decision.

    If `check.json` does not exist, nothing is stored, because a server could not check the model.
    """
    path = model_dir / CHECK
    if not path.is_file():
        return
    digest = fingerprint(model_dir / model_directory.INT8_GRAPH)
    model_directory.write_json(
        path, {**parse_object(read_limited(path), str(path)), "int8": {"graph": digest, **metrics}}
    )


def read_check(model_dir: Path) -> Check | None:
    """Read `check.json`; None if it does not exist, as in earlier archives; raises ClientError that names the file."""
    path = model_dir / CHECK
    try:
        content = parse_object(read_limited(path), CHECK)
    except FileNotFoundError:
        return None
    except ClientError as error:
        raise _corrupt(path, str(error)) from error
    try:
        coarse = len(range(0, _SIDE, _STEP))
        check = Check(
            _read(content["picture"], "u1", _SIDE, _SIDE, 3),  # codespell:ignore picture
            _read(content["mask"], "u1", _SIDE, _SIDE),
            _read(content["probabilities"], "<f4", content["num_classes"], coarse, coarse),
            str(content["weights"]),
            str(content.get("int8", {}).get("graph", "")),
        )
        if check.mask.max() >= len(check.probabilities) or describe_invalid_values(check.probabilities):
            raise ValueError("the mask or the probabilities are out of range")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise _corrupt(path, f"{type(error).__name__}: {error}") from error
    return check


def _corrupt(path: Path, reason: str) -> ClientError:
    return ClientError(f"{path} is corrupt ({reason}). Extract the model.tar.gz of the job again, or remove the file.")


def describe_invalid_values(probabilities: Float32Array) -> str:
    """Describe invalid values in the probabilities of any model; an empty string if all values are valid."""
    if not np.isfinite(probabilities).all():
        return "numbers that are not finite"
    return "" if probabilities.min() >= 0 and probabilities.max() <= 1.001 else "numbers that are not probabilities"


def fingerprint(path: Path) -> str:
    """Return a digest of the size of a file and of blocks spread over it, without reading the complete file.

    Training changes all weights, so files of different jobs differ in every block.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for number in range(_BLOCKS):
            file.seek(max(0, size - _BLOCK) * number // (_BLOCKS - 1))
            digest.update(file.read(_BLOCK))
    return digest.hexdigest()


def _scores(probabilities: Float32Array) -> Array:
    """Return the scores before the softmax, up to a constant: their mean over the classes is 0 here."""
    logarithms = np.log(np.maximum(probabilities, _LEAST, dtype=np.float64))
    scores: Float32Array = logarithms - logarithms.mean(axis=0)
    return scores


def _write(array: Array) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _read(text: str, dtype: str, *shape: int) -> Array:
    return np.frombuffer(base64.b64decode(text), dtype).reshape(shape)
