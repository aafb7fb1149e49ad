"""Selection of example images for the report."""

from __future__ import annotations

import heapq
import math
from pathlib import Path

import cv2
import numpy as np

from container.arrays import Array, Int64Array, Uint8Array
from container.metrics import ConfusionMatrix
from container.training.report.content import Borders, EvaluationSummary, ExampleImage

RADIUS = 3  # pixels from a border; errors within this distance are border errors

_SIDE = 360  # pixels of the longer side of an example
_WORST, _MEDIAN, _BEST = 6, 3, 3
_SAMPLE = 32  # images sampled at random, to select images near the median

RIGHT, WRONG_NEAR, WRONG_INSIDE, UNLABELED = range(4)


class ExampleImages:
    """Selection of example images with bounded memory: about 25 MB for any number of images of any size.

    File names do not contain the directory `root`, which exists only in the container.
    """

    def __init__(self, num_classes: int, root: Path | None = None) -> None:
        self._num_classes = num_classes
        self._prefix = f"{root}/" if root else ""
        self._random = np.random.default_rng(0)
        self._count = 0
        self._worst: list[tuple[float, int, ExampleImage]] = []  # heaps; the number makes entries unique
        self._best: list[tuple[float, int, ExampleImage]] = []
        self._sample: list[tuple[float, int, ExampleImage]] = []
        self.scores: dict[str, float] = {}  # mIOU of every image that has labels
        self.borders = Borders()

    def add(self, name: str, image: Uint8Array, labels: Uint8Array, prediction: Uint8Array) -> None:
        """Add an image, uint8 RGB (H, W, 3), its labels, and its prediction, both uint8 (H, W)."""
        name = name.removeprefix(self._prefix)
        errors, borders = find_errors(labels, prediction, self._num_classes)
        if not borders.near + borders.inside:
            return
        self.borders += borders
        confusion = ConfusionMatrix(self._num_classes)
        confusion.update(labels, prediction)
        score, number = confusion.miou, self._count
        self._count += 1
        self.scores[name] = score
        place = number if number < _SAMPLE else int(self._random.integers(number + 1))
        needed = place < _SAMPLE or len(self._worst) < _WORST or len(self._best) < _BEST
        if not (needed or -score > self._worst[0][0] or score > self._best[0][0]):
            return
        example = ExampleImage(name, score, 1 - confusion.pixel_accuracy, *_shrink(image, labels, prediction, errors))
        _keep(self._worst, (-score, -number, example), _WORST)
        _keep(self._best, (score, -number, example), _BEST)
        if place < len(self._sample):
            self._sample[place] = (score, number, example)
        elif place < _SAMPLE:
            self._sample.append((score, number, example))

    def scored(self, of: str, confusion: Int64Array, images: int, note: str = "") -> EvaluationSummary:
        """Return the summary with the selected images. No image occurs twice."""
        count = self._count
        worst = [example for _, _, example in sorted(self._worst, reverse=True)][: min(_WORST, math.ceil(count / 3))]
        best = [example for _, _, example in sorted(self._best, reverse=True)][: min(_BEST, count // 3)]
        middle = float(np.median(list(self.scores.values()))) if count else 0.0
        shown = {example.name for example in (*worst, *best)}
        near = sorted(self._sample, key=lambda entry: (abs(entry[0] - middle), entry[1]))
        median = [example for _, _, example in near if example.name not in shown][:_MEDIAN]
        return EvaluationSummary(of, confusion, images, self.borders, worst, median, best, note)


def find_errors(labels: Uint8Array, prediction: Uint8Array, num_classes: int) -> tuple[Array, Borders]:
    """Return the error map, see ExampleImage.errors, and the pixel counts.

    A border is between adjacent pixels with different labels. Ignored regions also have borders.
    """
    kernel = np.ones((2 * RADIUS + 1, 2 * RADIUS + 1), np.uint8)
    near = cv2.dilate(labels, kernel) != cv2.erode(labels, kernel)
    labeled, wrong = labels < num_classes, labels != prediction
    errors = np.where(wrong, np.where(near, WRONG_NEAR, WRONG_INSIDE), RIGHT).astype(np.uint8)
    errors[~labeled] = UNLABELED
    counts = np.bincount(errors.ravel(), minlength=4)
    at_border, total = int((near & labeled).sum()), int(labeled.sum())
    return errors, Borders(at_border, int(counts[WRONG_NEAR]), total - at_border, int(counts[WRONG_INSIDE]))


def _shrink(image: Uint8Array, *maps: Uint8Array) -> list[Array]:
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    if scale == 1.0:
        return [np.array(each) for each in (image, *maps)]  # copies, because the arrays can be views of a batch
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    small = [cv2.resize(each, size, interpolation=cv2.INTER_NEAREST) for each in maps]
    return [cv2.resize(image, size, interpolation=cv2.INTER_AREA), *small]


def _keep(heap: list[tuple[float, int, ExampleImage]], entry: tuple[float, int, ExampleImage], most: int) -> None:
    if len(heap) < most:
        heapq.heappush(heap, entry)
    else:
        heapq.heappushpop(heap, entry)
