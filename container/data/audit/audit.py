"""Audit of the data: opens every pair before training, and reports all issues together.

In Pipe mode, or if the audit is disabled, it collects the statistics during the first pass over each channel instead.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from container.artifact import model_directory
from container.data.audit.errors import find_errors, find_mixed_depths
from container.data.audit.issues import Issue, draw_table, raise_issues, summarize
from container.data.audit.reading import count_classes, examine_pairs
from container.data.audit.scale import SCALE, find_scale
from container.data.audit.statistics import ChannelStatistics, PairInfo, UnusablePairError
from container.data.audit.warnings import find_range_issues, find_warnings
from container.data.labels.class_counts import ClassCounts
from container.data.labels.class_names import known_classes
from container.data.labels.depths import Depths
from container.data.samples import FileSamples, Samples
from container.errors import ClientError, printable
from container.hyperparameters import Hyperparameters

LOG = logging.getLogger(__name__)

REPORT = "audit.json"

_MOST_UNUSABLE = 100  # unusable pairs in a first pass; with more, the pass is stopped
_MOST_DETAILS = 10  # details of a warning in the log
_FIRST_IMAGES = 64  # images of a first pass after which their scale is checked


class _WarningRecorder(logging.Handler):
    """Log handler that records the messages of warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextlib.contextmanager
def recorded(folder: Path) -> Iterator[list[str]]:
    """Record the warnings about channels while they are checked and opened, for audit.json in `folder`.

    If a ClientError is raised, the job fails before the audit, and audit.json contains this error.
    """
    recorder, log = _WarningRecorder(), logging.getLogger("container.data")
    log.addHandler(recorder)
    try:
        yield recorder.messages
    except ClientError as error:
        issue = Issue("channels", error.message, error.details)
        model_directory.write_json(
            folder / REPORT, {"errors": [issue.as_dict()], "warnings": [], "notes": recorder.messages, "channels": {}}
        )
        raise
    finally:
        log.removeHandler(recorder)


class Audit:
    """Statistics and issues of the channels of a job. `folder` is the directory of audit.json.

    `unopened` contains the errors of channels that could not be opened, and `notes` the warnings from `recorded`. This
    host has one part of each channel in `sharded`. With `divided`, a first pass covers one part of every channel.
    """

    def __init__(
        self,
        job: Hyperparameters,
        samples: Mapping[str, Samples],
        folder: Path,
        unopened: Sequence[Issue] = (),
        notes: Sequence[str] = (),
        sharded: Collection[str] = (),
        divided: bool = False,
    ) -> None:
        self._sharded = sharded
        self._divided = divided
        self._notes = notes
        self._job = job
        self._samples = samples
        self._path = folder / REPORT
        self._statistics = {
            channel: ChannelStatistics(channel, each.label_map, job.num_classes, job.crop)
            for channel, each in samples.items()
        }
        for channel, each in samples.items():
            self._statistics[channel].is_stream = each.listed() is None
        self._modes: dict[str, str] = {}
        self._counted: dict[str, ClassCounts] = {}  # of `count_classes`
        self._errors = list(unopened)
        self._logged: set[str] = set()
        self._is_scale_judged = False
        self._pending = set(samples)
        self._stop = threading.Event()

    def run(self, mode: str, stop: threading.Event) -> None:
        """Audit the File channels with `mode` (full, fast, or off), and report the issues.

        Raises one ClientError for all errors, the most important first. audit.json is always written.
        """
        self._stop = stop
        files = {name: each for name, each in self._samples.items() if isinstance(each, FileSamples)}
        start = time.monotonic()
        for channel, samples in files.items() if mode != "off" else ():
            self._modes[channel] = mode
            self._statistics[channel].pairs = len(samples.pairs)
            examine_pairs(self._statistics[channel], samples, self._job, mode, stop)
        if stop.is_set():
            return
        if mode == "full":
            self._pending -= files.keys()
        if self._modes or self._errors:
            seconds = time.monotonic() - start
            complete = mode == "full" and not self._sharded
            self._conclude(list(self._modes), f"audit ({mode}, {seconds:.1f} s)", complete)

    def count_classes(self, channel: str, stop: threading.Event) -> None:
        """Count the classes of a File channel before the first pass, if `run` did not open all of its pairs."""
        samples = self._samples[channel]
        if channel in self._pending and isinstance(samples, FileSamples):
            start = time.monotonic()
            self._counted[channel] = count_classes(samples, self._job, stop)
            values = channel, len(samples.pairs), time.monotonic() - start
            LOG.info("Counted the classes of channel %s annotations=%d seconds=%.1f", *values)

    def labels(self, channel: str) -> list[int]:
        """Return the number of pixels of each class in the opened annotations of a channel."""
        return [int(count) for count in self._statistics[channel].labels[: self._job.num_classes]]

    def depths(self, channel: str) -> Depths:
        """Return the opened gray annotations of a channel, by bit depth."""
        return self._statistics[channel].depths

    def begin(self, channel: str) -> bool:
        """Start a pass; returns whether it must call `watch`, because the channel has not been audited completely."""
        if channel not in self._pending:
            return False
        fresh = ChannelStatistics(channel, self._samples[channel].label_map, self._job.num_classes, self._job.crop)
        fresh.is_stream = self._statistics[channel].is_stream
        self._statistics[channel] = fresh
        return True

    def class_counts(self, channel: str) -> ClassCounts | None:
        """Return the class frequencies of a channel; None until all of its annotations have been opened."""
        if channel in self._pending:
            return self._counted.get(channel)
        return self._statistics[channel].class_counts

    def watch(self, channel: str, seen: PairInfo) -> None:
        """Add a pair of a first pass. After the first pairs of channel train, the scale of the images is checked.

        Raises UnusablePairError if the bit depths of annotations conflict, because the pass cannot continue.
        """
        statistics = self._statistics[channel]
        statistics.add(seen)
        if seen.reading.bits is not None and (issue := find_mixed_depths(self._statistics, is_all=False)):
            raise UnusablePairError(issue.message, "label")
        if channel == "train" and not self._is_scale_judged and statistics.usable >= _FIRST_IMAGES:
            self._is_scale_judged = True
            for issue in find_scale(statistics, self._job):
                self._log(issue)

    def watch_bad(self, channel: str, error: UnusablePairError) -> bool:
        """Add an unusable pair of a first pass; returns whether the pass can continue."""
        return self._statistics[channel].add_unusable(error) < max(_MOST_UNUSABLE, self._job.max_bad_records + 1)

    def end(self, channel: str) -> None:
        """Report the issues of a channel after its first pass; raises ClientError as `run` does."""
        self._pending.discard(channel)
        self._modes[channel] = "first pass"
        self._statistics[channel].pairs = self._statistics[channel].opened
        self._conclude([channel], f"audit of channel {channel} (first pass)", complete=not self._divided)

    def give_up(self, channel: str, error: ClientError) -> None:
        """Report the issues of a channel whose first pass failed; raises ClientError with the errors so far."""
        self._modes[channel] = "first pass, given up"
        self._statistics[channel].pairs = self._statistics[channel].opened
        if not isinstance(error, UnusablePairError) and not any(
            error.message.startswith(each.message) for each in self._errors
        ):
            self._errors.append(Issue("stream", error.message, error.details))
        self._conclude([channel], f"audit of channel {channel} (first pass, incomplete)", complete=False)

    def _conclude(self, channels: Sequence[str], title: str, complete: bool) -> None:
        for channel in channels:
            self._statistics[channel].sort()
        judged = {channel: self._statistics[channel] for channel in self._statistics if self._modes.get(channel)}
        names = self._class_names()
        budget = self._job.max_bad_records
        found = find_errors({channel: self._statistics[channel] for channel in channels}, budget, judged)
        self._errors += [issue for issue in found if issue not in self._errors]
        if not complete:  # a part of the pairs cannot show that values are missing
            self._errors = [issue for issue in self._errors if issue.kind not in ("classes", "label map")]
        is_all = judged.keys() == self._samples.keys()
        if complete:
            warnings = find_warnings(judged, names, self._job, self._stop, is_all)
        else:  # a part of the pairs shows the sizes and the range of the images
            scale = find_scale(judged["train"], self._job) if "train" in judged else ()
            warnings = [*scale, *find_range_issues(judged, self._job, is_all=False)]
        warnings += self._find_unknown_classes()
        self._write(judged, names, warnings)
        LOG.info("%s: %s", title, summarize(self._errors, warnings, self._path))
        for line in draw_table([judged[channel] for channel in channels], names) if channels else ():
            LOG.info("%s", line)
        for issue in warnings:
            self._log(issue)
        raise_issues(self._errors, f"output/data/{REPORT}")

    def _log(self, issue: Issue) -> None:
        """Log a warning once, with its first details."""
        key = issue.kind if issue.kind == SCALE else issue.message  # the numbers in its message change during a pass
        if key in self._logged:
            return
        self._logged.add(key)
        LOG.warning("%s", printable(issue.message))
        for detail in issue.details[:_MOST_DETAILS]:
            LOG.warning("  %s", printable(detail))
        if issue.details[_MOST_DETAILS:]:
            LOG.warning("  and %d more. %s contains all of them", len(issue.details) - _MOST_DETAILS, self._path)

    def _find_unknown_classes(self) -> list[Issue]:
        """Warn of classes in the Ground Truth metadata that the job does not have."""
        names = {
            index: name
            for samples in self._samples.values()
            if samples.color_map and samples.label_map.scale is not None
            for index, name in samples.color_map.names.items()
            if index >= self._job.num_classes
        }
        if not names:
            return []
        listed = ", ".join(f"{index} ({name})" for index, name in sorted(names.items()))
        return [
            Issue(
                "metadata",
                f"The Ground Truth metadata contains classes that num_classes={self._job.num_classes} excludes: "
                f"{listed}. If the job must learn them, increase num_classes",
            )
        ]

    def _class_names(self) -> dict[int, str]:
        """Return the class names. If channels have different names, the first channel is used."""
        names: dict[int, str] = {}
        for samples in self._samples.values():
            for label, entry in known_classes(samples, self._job.num_classes, self._job.named_classes).items():
                if entry.name is not None:
                    names.setdefault(label, entry.name)
        return names

    def _write(self, judged: Mapping[str, ChannelStatistics], names: Mapping[int, str], warnings: list[Issue]) -> None:
        model_directory.write_json(
            self._path,
            {
                "errors": [issue.as_dict() for issue in self._errors],
                "warnings": [issue.as_dict() for issue in warnings],
                "notes": list(self._notes),
                "channels": {
                    channel: {"mode": self._modes[channel], **statistics.as_dict(names)}
                    for channel, statistics in judged.items()
                },
            },
        )
