"""Post-training int8 quantization of an ONNX model, calibrated on images.

`python -m container.engines.quantize MODEL_DIR IMAGES` adds `model.int8.onnx` to an extracted model.tar.gz.
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
from container.engines.onnx_model import prepare_model
from container.errors import ClientError
from container.image_range import Range

_LONG_SIDE = 520  # the default of base_size: about the scale of the training crops, and fast


def quantize_onnx(source: Path, target: Path, images: Iterable[Uint8Array]) -> None:
    """Write the ONNX model `source` to `target` with int8 convolutions, completely or not at all.

    The images are uint8 RGB (H, W, 3) of any size; 16 are enough. Their extreme values determine the ranges of the
    inputs of the convolutions. Weights have one scale per output channel. Raises ClientError if there are no images.
    """
    reader = _Reader(images)
    needed = source.stat().st_size // 3  # the int8 model has about a quarter of the size
    model = onnx.shape_inference.infer_shapes(onnx.load(str(source)))
    add_pre_process_metadata(model)  # avoids advice to run the pre-processing, which would only add shapes
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
            extra_options={"OpTypesToExcludeOutputQuantization": ["Conv"]},  # sums of branches are not quantized
        )


def _check_graph(path: Path) -> None:
    try:
        onnx.load(str(path))
    except DecodeError as error:
        raise ValueError(str(error)) from error


class _Reader(CalibrationDataReader):
    """Calibration data for ONNX Runtime, one image at a time."""

    def __init__(self, images: Iterable[Uint8Array]) -> None:
        self._images = iter(images)
        first = next(self._images, None)
        if first is None:
            raise ClientError(
                "there are no images for the int8 calibration. Provide about 16 images like those of the requests."
            )
        self._images = itertools.chain([first], self._images)

    def get_next(self) -> dict[str, Array] | None:
        """Return the next image as the model input, or None after the last."""
        image = next(self._images, None)
        return None if image is None else {"image": image[None]}


def read_images(folder: Path, count: int, image_range: Range | None = None) -> Iterator[Array]:
    """Yield up to `count` images below `folder`, evenly selected, and scaled down if they are large.

    `image_range` applies to 16-bit images. Raises ClientError that names the first file that is not an image.
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
    """Run the command; for unusable input, write one line to stderr and exit with status 1."""
    parser = argparse.ArgumentParser(description=f"Add {model_directory.INT8_GRAPH} to an extracted model.tar.gz.")
    parser.add_argument("model_dir", type=Path, help="directory with the extracted model.tar.gz")
    parser.add_argument("images", type=Path, help="folder of JPEG or PNG images that are similar to the requests")
    parser.add_argument("--count", type=int, default=16, help="number of images to use (%(default)s)")
    parser.add_argument("--target", type=Path, metavar="ONNX", help="output file (default: in MODEL_DIR)")
    arguments = parser.parse_args()
    target = arguments.target or arguments.model_dir / model_directory.INT8_GRAPH
    try:
        with tempfile.TemporaryDirectory() as scratch:
            source = prepare_model(arguments.model_dir, "auto", Path(scratch))
            described = (arguments.model_dir / model_directory.HYPERPARAMETERS).is_file()
            image_range = model_directory.read_image_range(arguments.model_dir) if described else None
            quantize_onnx(source, target, read_images(arguments.images, max(1, arguments.count), image_range))
    except ClientError as error:
        raise SystemExit(f"ClientError: {error}") from error
    print(target)


if __name__ == "__main__":
    main()
