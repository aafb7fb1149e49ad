"""Curves over the epochs, as SVG."""

from __future__ import annotations

import dataclasses
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from typing import Any

import leather
from markupsafe import Markup

_WIDTH, _HEIGHT = 420, 210
_LEAST_TICKS = 4  # with fewer epochs, each epoch has one tick
_MOST_POINTS = 300  # per curve; more are not visible on a screen
_CURVES = {  # metrics of an epoch by their key in report.json
    "train_loss": "training loss",
    "mIOU": "validation mIOU",
    "pixel_accuracy": "validation pixel accuracy",
    "learning_rate": "learning rate",
    "train_throughput": "training samples/s",
}


@dataclasses.dataclass(frozen=True)
class Curve:
    """Curve of one metric over the epochs; `description` is its alternative text."""

    title: str
    description: str
    svg: Markup


def draw_curves(history: Sequence[Mapping[str, Any]], best: int | None) -> list[Curve]:
    """Draw one curve per metric of the epochs; `best` is the epoch to mark."""
    curves = []
    for key, title in _CURVES.items():
        points = [
            (int(entry["epoch"]), float(entry[key]))
            for entry in history
            if entry.get(key) is not None and math.isfinite(entry[key])
        ]
        if points:
            description = _describe(title, points, best)
            curves.append(Curve(title, description, _draw(_thin(points, best), best, description)))
    return curves


def _describe(title: str, points: list[tuple[int, float]], best: int | None) -> str:
    (first, start), (last, end) = points[0], points[-1]
    low, high = (pick(points, key=lambda point: point[1]) for pick in (min, max))
    text = f"{title}: {start:.4g} in epoch {first}"
    if last != first:
        text += f", {end:.4g} in epoch {last}. Lowest {low[1]:.4g} (epoch {low[0]}), highest {high[1]:.4g} "
        text += f"(epoch {high[0]})"
    marked = dict(points).get(-1 if best is None else best)
    return text + (f". {marked:.4g} in the best epoch, {best}" if marked is not None else "")


def _thin(points: list[tuple[int, float]], best: int | None) -> list[tuple[int, float]]:
    """Reduce the number of points; the first, the last, and the best epoch are kept."""
    step = math.ceil(len(points) / _MOST_POINTS)
    return [point for i, point in enumerate(points) if i % step == 0 or i == len(points) - 1 or point[0] == best]


def _draw(points: list[tuple[int, float]], best: int | None, description: str) -> Markup:
    chart = leather.Chart()
    values = [value for _, value in points]
    low, high = min(values), max(values)
    if low == high:  # one point or a constant value, which can be outside of a scale from 0 to 1
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    chart.add_y_scale(min(0.0, low) if low < high / 2 else low, high)
    first, last = points[0][0], max(points[-1][0], points[0][0] + 1)
    chart.add_x_scale(first, last)
    if last - first < _LEAST_TICKS:  # no ticks at fractions of an epoch
        chart.set_x_scale(_IntegerScale(first, last))
    chart.add_series(leather.Series(points), _MarkedLine(best))
    svg = ElementTree.Element(
        "svg", {"viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "role": "img", "aria-label": description, "class": "curve"}
    )
    svg.append(chart.to_svg_group(_WIDTH, _HEIGHT))
    return Markup(ElementTree.tostring(svg, encoding="unicode"))


class _IntegerScale(leather.Linear):
    """Scale with ticks at the integers of its domain."""

    def ticks(self) -> list[int]:
        return list(range(int(self._data_min), int(self._data_max) + 1))


class _MarkedLine(leather.Line):
    """Line with a dot at the best epoch; a line with one point is only a dot."""

    def __init__(self, best: int | None) -> None:
        super().__init__()
        self._best = best

    def to_svg(
        self, width: float, height: float, x_scale: Any, y_scale: Any, series: Any, palette: Any
    ) -> ElementTree.Element:
        """Draw the line as the base class does, and the dot over it."""
        group: ElementTree.Element = super().to_svg(width, height, x_scale, y_scale, series, palette)
        points = [(row.x, row.y) for row in series.data()]
        for x, y in points:
            if x == self._best or len(points) == 1:
                place = str(x_scale.project(x, 0, width)), str(y_scale.project(y, height, 0))
                ElementTree.SubElement(group, "circle", {"cx": place[0], "cy": place[1], "r": "5"})
        return group
