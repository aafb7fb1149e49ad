"""Print the metrics in the report of a job, and fail if the mIOU is too low."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from local_test.overlay import read_class_names


def main() -> None:
    """Print the metrics of full images in one report."""
    parser = argparse.ArgumentParser(prog="python -m local_test.score", description=__doc__)
    parser.add_argument("report", type=Path, help="output/data/report.json of a job")
    parser.add_argument("--classes", type=Path, metavar="JSON", help="a list of class names")
    parser.add_argument("--least", type=float, default=0.0, metavar="mIOU", help="exit with 1 if the mIOU is lower")
    arguments = parser.parse_args()
    report = json.loads(arguments.report.read_bytes())
    scores = report.get("validation") or {}
    if scores.get("mIOU") is None:
        reason = scores.get("reason") or report.get("failed", {}).get("validation") or "_report_minutes is 0"
        sys.exit(f"score: {arguments.report} has no metrics of full images: {reason}")
    classes = read_class_names(arguments.classes) if arguments.classes else []
    for label, iou in enumerate(scores["iou"]):
        name = classes[label] if label < len(classes) else ""
        print(f"  class {label} {name:<12} IoU {'absent' if iou is None else format(iou, '.3f')}")
    print(f"  pixel accuracy {scores['pixel_accuracy']:.3f}, mIOU {scores['mIOU']:.3f} on full held-out images")
    if not scores.get("complete", True):
        print(f"  Only {scores['images']} images were evaluated. {arguments.report} contains the reason.")
    if not scores["mIOU"] >= arguments.least:
        sys.exit(f"score: mIOU {scores['mIOU']:.3f} is below {arguments.least}")


if __name__ == "__main__":
    main()
