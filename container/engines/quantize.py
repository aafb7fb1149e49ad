"""Post-training int8 quantization of an ONNX model, calibrated on images.

`python -m container.engines.quantize MODEL_DIR IMAGES` adds `model.int8.onnx` to an unpacked model.tar.gz.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import onnx
from google.protobuf.message import DecodeError
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import add_pre_process_metadata

from container.arrays import Array, Uint8Array
from container.artifact import model_directory
from container.codecs.images import IMAGE_SUFFIXES, decode_image
from container.codecs.images import DecodeError as ImageError
from container.engines.conversion import prepare_graph
from container.errors import ClientError
from container.image_range import Range

_LONG_SIDE = 520  # base_size's default: about the scale of what the network was trained on, and quick


def quantize_onnx(source: Path, target: Path, images: Iterable[Uint8Array]) -> None:
    """Write the graph `source` to `target` with int8 convolutions, complete or not at all.

    The images are uint8 RGB (H, W, 3), each of any size; 16 are enough. Their extremes set the ranges of what enters
    the convolutions; weights get a scale per output channel. Raises ClientError without images.
    """
    reader = _Reader(images)
    needed = source.stat().st_size // 3  # it turns out at about a quarter
    model = onnx.shape_inference.infer_shapes(onnx.load(str(source)))
    add_pre_process_metadata(model)  # shapes are all that the pre-processing would add: no advice to run it
    with model_directory.replacing(target, needed, _check_graph) as temporary:
        quantize_static(
            model,
            str(temporary),
            reader,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": ["Conv"]},  # sums of branches stay exact
        )


def _check_graph(path: Path) -> None:
    try:
        onnx.load(str(path))
    except DecodeError as error:
        raise ValueError(str(error)) from error


class _Reader(CalibrationDataReader):
    """Hands the images to ONNX Runtime one by one."""

    def __init__(self, images: Iterable[Uint8Array]) -> None:
        self._images = iter(images)
        first = next(self._images, None)
        if first is None:
            raise ClientError(
                "there is no image to take int8 ranges from: give about 16 photographs like the requests'"
            )
        self._images = itertools.chain([first], self._images)

    def get_next(self) -> dict[str, Array] | None:
        """Return the next image as the graph's input, or None after the last."""
        image = next(self._images, None)
        return None if image is None else {"image": image[None]}


def read_images(folder: Path, count: int, image_range: Range | None = None) -> Iterator[Array]:
    """Give up to `count` images below `folder`, spread over all of them, large ones scaled down.

    `image_range` is for 16-bit images.

    Raises ClientError that names the first file which is no image.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    for path in paths[:: max(1, len(paths) // count)][:count]:
        try:
            image = decode_image(path.read_bytes(), image_range=image_range)
        except (ImageError, OSError) as error:
            raise ClientError(f"{path}: {error}") from error
        scale = min(1.0, _LONG_SIDE / max(image.shape[:2]))
        yield cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image


def main() -> None:
    """Quantize what the command line names; unusable input is one line on stderr and exit status 1."""
    parser = argparse.ArgumentParser(description=f"Add {model_directory.INT8_GRAPH} to an unpacked model.tar.gz.")
    parser.add_argument("model_dir", type=Path, help="the directory model.tar.gz was unpacked to")
    parser.add_argument("images", type=Path, help="folder of JPEG or PNG photographs like those of the requests")
    parser.add_argument("--count", type=int, default=16, help="how many of them to use (%(default)s)")
    parser.add_argument("--target", type=Path, metavar="ONNX", help="write there instead of into MODEL_DIR")
    arguments = parser.parse_args()
    target = arguments.target or arguments.model_dir / model_directory.INT8_GRAPH
    try:
        with tempfile.TemporaryDirectory() as scratch:
            source = prepare_graph(arguments.model_dir, "auto", Path(scratch))
            described = (arguments.model_dir / model_directory.HYPERPARAMETERS).is_file()
            image_range = model_directory.read_image_range(arguments.model_dir) if described else None
            quantize_onnx(source, target, read_images(arguments.images, max(1, arguments.count), image_range))
    except ClientError as error:
        raise SystemExit(f"ClientError: {error}") from error
    print(target)


if __name__ == "__main__":
    main()
