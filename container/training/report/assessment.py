"""The assessment of a model, and the next steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from container.data.audit.issues import percent
from container.data.audit.scale import SCALE
from container.training.report.class_metrics import class_metrics
from container.training.report.content import Content, EvaluationSummary

_LISTED = 5  # classes in one sentence
_RISE = 0.01  # share of the best mIOU; a larger increase in the last third of the epochs means that it still increased
_DROP = 0.02  # decrease of mIOU from the best epoch to the last
_LOSS_DROP = 0.1  # decrease of the training loss over these epochs, as a share
_LOST = 0.1  # decrease of mIOU from center crops to full images
_IGNORED = 0.5  # share of the pixels of a channel


@dataclasses.dataclass(frozen=True)
class Assessment:
    """Metrics of a model with the most important recommendation, and further recommendations."""

    sentence: str
    further: tuple[str, ...]


def assess(content: Content) -> Assessment:
    """Return the assessment of a job or an evaluation."""
    if content.scored is None and content.best is None:
        advice = (*_other_scale(content), *_ignored_data(content))
        return Assessment("No epoch is complete, so there are no metrics", advice)
    rules = (_other_scale, _never_predicted, _ignored_data, _over_fitted, _unlike_crops, _still_rising)
    advice = tuple(sentence for rule in rules for sentence in rule(content))
    first = advice[0] if advice else _weakest(content)
    return Assessment(f"{_score(content)}. {first}", advice[1:])


def _score(content: Content) -> str:
    best, scored = content.best, content.scored
    epoch = f"best in epoch {best['epoch']} of {_epochs(content)}" if best else ""
    if scored is None:
        assert best is not None
        return f"mIOU {best['mIOU']:.3f} in validation, {epoch}"
    return f"mIOU {_mean(scored):.3f} on {scored.of}" + (f", {epoch}" if epoch and "epoch" not in scored.of else "")


def _mean(scored: EvaluationSummary) -> float:
    scores = [row.iou for row in class_metrics(scored.confusion) if row.iou is not None]
    return float(np.mean(scores)) if scores else 0.0


def _epochs(content: Content) -> str:
    return f"0 to {content.history[-1]['epoch']}"


def _other_scale(content: Content) -> Iterator[str]:
    """Return the warning of the audit about the scale of images, which has precedence over other advice."""
    warnings = (content.audit or {}).get("warnings", ())
    if scale := next((issue["message"] for issue in warnings if issue.get("kind") == SCALE), ""):
        lost = _lost_by_full_images(content)
        yield f"{lost}. The most likely cause is the scale of the images: {scale}" if lost else scale


def _unlike_crops(content: Content) -> Iterator[str]:
    """Explain, if the audit has no reason, why full images have lower metrics than center crops."""
    if [*_other_scale(content)] or not content.can_set("_validation"):
        return
    if lost := _lost_by_full_images(content):
        yield (
            f"{lost}. Center crops do not contain the borders of the images, and crop_size changes their scale. "
            "To select the best epoch by full images, set _validation=full"
        )


def _lost_by_full_images(content: Content) -> str:
    """Compare the mIOU of full images with that of the best epoch; an empty string if they are similar."""
    best, whole = content.best, content.scored
    if not best or not whole or "epoch" in whole.of or (difference := best["mIOU"] - _mean(whole)) <= _LOST:
        return ""
    return f"The mIOU of full images is {difference:.3f} lower than the validation mIOU in epoch {best['epoch']}"


def _never_predicted(content: Content) -> Iterator[str]:
    if content.scored is None:
        return
    rows = class_metrics(content.scored.confusion)
    missed = [row for row in rows if row.truth and not row.predicted]
    if not missed:
        return
    missed.sort(key=lambda row: -row.truth)
    listed = [f"{content.called(row.label)} ({percent(row.truth)})" for row in missed[:_LISTED]]
    listed[0] = listed[0].removesuffix(")") + " of the labeled pixels)"
    named = ", ".join(listed)
    more = f" and {len(missed) - _LISTED} more" if missed[_LISTED:] else ""
    one = len(missed) == 1
    options = [name for name in ("_rare_crops", "_class_weights") if content.can_set(name)]
    options += ["_loss=ce+dice"] * content.can_set("_loss")
    remedies = [f"Add more examples of {'this class' if one else 'these classes'}", "train longer"]
    if options:
        remedies.append(f"set {' or '.join(options[:2])}")
    *others, last = remedies
    yield f"The model never predicts {named}{more}. {', '.join(others)}, or {last}"


def _ignored_data(content: Content) -> Iterator[str]:
    for channel, found in (content.audit or {}).get("channels", {}).items():
        share = found.get("ignored_share", 0)
        if share > _IGNORED:
            yield (
                f"{percent(share)} of the pixels of channel {channel} are ignored. Make sure that the label map "
                "contains all pixel values of the classes"
            )


def _over_fitted(content: Content) -> Iterator[str]:
    """Recommend more data or regularization if the training loss decreased while the validation mIOU decreased."""
    best = content.best
    if best is None:
        return
    last = content.validated[-1]
    fell = best["mIOU"] - last["mIOU"]
    if fell > _DROP and last["train_loss"] < best["train_loss"] * (1 - _LOSS_DROP):
        further = ["increase weight_decay"] if content.can_raise("weight_decay") else []
        further += ["set _augmentation=strong"] if content.can_set("_augmentation") else []
        options = ", or ".join(["Add more training images", *further])
        yield (
            f"After epoch {best['epoch']}, the training loss continued to decrease while the validation mIOU decreased "
            f"by {fell:.3f}. The model overfits the training images. {options}"
        )


def _still_rising(content: Content) -> Iterator[str]:
    """Recommend more epochs if the best epoch is among the last, and better than the first two thirds of the job."""
    best, history = content.best, content.validated
    if best is None or content.early or len(content.history) < content.epochs:
        return
    recent = max(1, len(history) // 3)
    before = max((entry["mIOU"] for entry in history[:-recent]), default=0.0)
    if best["epoch"] >= history[-1]["epoch"] - recent // 2 and best["mIOU"] > before + _RISE * best["mIOU"]:
        yield "The mIOU was still increasing when training ended. Train for more epochs"


def _weakest(content: Content) -> str:
    if content.scored is None:
        return "The metrics of the classes are available after training"
    rows = [row for row in class_metrics(content.scored.confusion) if row.truth and row.iou is not None]
    if not rows:
        return "The images have no labeled pixels"
    row = min(rows, key=lambda row: row.iou or 0.0)
    return f"The weakest class is {content.called(row.label)} (IoU {row.iou:.3f}). Add more examples of it"
