"""The audit: opens every pair before training, and reports all issues together.

In Pipe mode, or where it was left out, the findings grow during the first pass over each channel instead.
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
from container.data.audit.issues import Issue, raise_faults
from container.data.audit.reading import count_classes, examine_pairs
from container.data.audit.scale import SCALE, find_scale
from container.data.audit.statistics import BadSample, ChannelStatistics, PairInfo
from container.data.audit.table import draw_table, summarize
from container.data.audit.warnings import find_warnings, odd_range
from container.data.labels.class_counts import ClassCounts
from container.data.labels.class_names import known_classes
from container.data.labels.depths import Depths
from container.data.samples import FileSamples, Samples
from container.errors import ClientError, printable
from container.hyperparameters import Hyperparameters

LOG = logging.getLogger(__name__)

REPORT = "audit.json"

_MOST_FAULTS = 100  # unusable pairs of a stream, after which its pass need not go on
_MOST_DETAILS = 10  # of a warning in the log
_FIRST_IMAGES = 64  # of a stream, by which its scale is judged before the pass is over


class _Notes(logging.Handler):
    """Keeps the messages of warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextlib.contextmanager
def recorded(folder: Path) -> Iterator[list[str]]:
    """Collect, for audit.json in `folder`, what the log is warned of while channels are checked and opened.

    A ClientError ends the job before there is an audit: then audit.json holds it.
    """
    notes, log = _Notes(), logging.getLogger("container.data")
    log.addHandler(notes)
    try:
        yield notes.messages
    except ClientError as error:
        fault = Issue("channels", error.message, error.details)
        model_directory.write_json(
            folder / REPORT, {"errors": [fault.as_dict()], "warnings": [], "notes": notes.messages, "channels": {}}
        )
        raise
    finally:
        log.removeHandler(notes)


class Audit:
    """The findings on a job's channels, and what follows from them; `folder` is where audit.json goes.

    `unopened` are the faults of channels that could not even be opened, `notes` what `recorded` has collected. Of the
    channels `sharded` this host has a part, and with `divided` a first pass sees a part of any.
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
        self._findings = {
            channel: ChannelStatistics(channel, each.label_map, job.num_classes, job.crop)
            for channel, each in samples.items()
        }
        for channel, each in samples.items():
            self._findings[channel].is_stream = each.listed() is None
        self._modes: dict[str, str] = {}
        self._counted: dict[str, ClassCounts] = {}  # beforehand
        self._errors = list(unopened)
        self._told: set[str] = set()
        self._is_scale_judged = False
        self._pending = set(samples)
        self._stop = threading.Event()

    def run(self, mode: str, stop: threading.Event) -> None:
        """Audit the File channels as `mode` says (full, fast or off), and tell what was found.

        Raises one ClientError, the worst fault first; audit.json is written either way.
        """
        self._stop = stop
        files = {name: each for name, each in self._samples.items() if isinstance(each, FileSamples)}
        start = time.monotonic()
        for channel, samples in files.items() if mode != "off" else ():
            self._modes[channel] = mode
            self._findings[channel].pairs = len(samples.pairs)
            examine_pairs(self._findings[channel], samples, self._job, mode, stop)
        if stop.is_set():
            return
        if mode == "full":
            self._pending -= files.keys()
        if self._modes or self._errors:
            seconds = time.monotonic() - start
            complete = mode == "full" and not self._sharded
            self._conclude(list(self._modes), f"audit ({mode}, {seconds:.1f} s)", complete)

    def count_classes(self, channel: str, stop: threading.Event) -> None:
        """Count a File channel's classes before the first pass, where `run` has not opened all of its pairs."""
        samples = self._samples[channel]
        if channel in self._pending and isinstance(samples, FileSamples):
            start = time.monotonic()
            self._counted[channel] = count_classes(samples, self._job, stop)
            told = len(samples.pairs), channel, time.monotonic() - start
            LOG.info("counted the classes of the %d annotations of channel %s in %.1f s", *told)

    def labels(self, channel: str) -> list[int]:
        """Count the pixels of each class that were seen in a channel."""
        return [int(count) for count in self._findings[channel].labels[: self._job.num_classes]]

    def depths(self, channel: str) -> Depths:
        """Return the gray annotations that were seen in a channel, by their bit depths."""
        return self._findings[channel].depths

    def begin(self, channel: str) -> bool:
        """Say whether a pass that begins has to be watched: the first over a channel that no audit has seen whole."""
        if channel not in self._pending:
            return False
        fresh = ChannelStatistics(channel, self._samples[channel].label_map, self._job.num_classes, self._job.crop)
        fresh.is_stream = self._findings[channel].is_stream
        self._findings[channel] = fresh
        return True

    def class_counts(self, channel: str) -> ClassCounts | None:
        """Return how often each class occurs in a channel; None until all of its annotations have been seen."""
        if channel in self._pending:
            return self._counted.get(channel)
        return self._findings[channel].class_counts

    def watch(self, channel: str, seen: PairInfo) -> None:
        """Take in a pair of a first pass; the first of channel train show at what scale the job trains.

        Raises BadSample when bit depths contradict each other: the pass cannot continue.
        """
        findings = self._findings[channel]
        findings.add(seen)
        if seen.reading.bits is not None and (fault := find_mixed_depths(self._findings, is_all=False)):
            raise BadSample(fault.message, "label")
        if channel == "train" and not self._is_scale_judged and findings.usable >= _FIRST_IMAGES:
            self._is_scale_judged = True
            for fault in find_scale(findings, self._job):
                self._tell(fault)

    def watch_bad(self, channel: str, error: BadSample) -> bool:
        """Take in an unusable pair of a first pass; returns whether the pass may go on."""
        return self._findings[channel].add_bad(error) < max(_MOST_FAULTS, self._job.max_bad_records + 1)

    def end(self, channel: str) -> None:
        """Judge a channel whose first pass is complete; raises ClientError as `run` does."""
        self._pending.discard(channel)
        self._modes[channel] = "first pass"
        self._findings[channel].pairs = self._findings[channel].opened
        self._conclude([channel], f"audit of channel {channel} (first pass)", complete=not self._divided)

    def give_up(self, channel: str, error: ClientError) -> None:
        """Judge a channel whose first pass cannot go on; raises ClientError with what was found until then."""
        self._modes[channel] = "first pass, given up"
        self._findings[channel].pairs = self._findings[channel].opened
        if not isinstance(error, BadSample) and not any(
            error.message.startswith(each.message) for each in self._errors
        ):
            self._errors.append(Issue("stream", error.message, error.details))
        self._conclude([channel], f"audit of channel {channel} (first pass, given up)", complete=False)

    def _conclude(self, channels: Sequence[str], title: str, complete: bool) -> None:
        for channel in channels:
            self._findings[channel].sort()
        judged = {channel: self._findings[channel] for channel in self._findings if self._modes.get(channel)}
        names = self._names()
        budget = self._job.max_bad_records
        found = find_errors({channel: self._findings[channel] for channel in channels}, budget, judged)
        self._errors += [fault for fault in found if fault not in self._errors]
        if not complete:  # a sample shows what is broken, not what is absent
            self._errors = [fault for fault in self._errors if fault.kind not in ("classes", "label map")]
        is_all = judged.keys() == self._samples.keys()
        if complete:
            warnings = find_warnings(judged, names, self._job, self._stop, is_all)
        else:  # a sample shows the sizes and the range of the images, too
            scale = find_scale(judged["train"], self._job) if "train" in judged else ()
            warnings = [*scale, *odd_range(judged, self._job, is_all=False)]
        warnings += self._unknown_classes()
        self._write(judged, names, warnings)
        LOG.info("%s: %s", title, summarize(self._errors, warnings, self._path))
        for line in draw_table([judged[channel] for channel in channels], names) if channels else ():
            LOG.info("%s", line)
        for fault in warnings:
            self._tell(fault)
        raise_faults(self._errors, f"output/data/{REPORT}")

    def _tell(self, fault: Issue) -> None:
        """Log a warning once, with the first of its details."""
        key = fault.kind if fault.kind == SCALE else fault.message  # its numbers change while more images are seen
        if key in self._told:
            return
        self._told.add(key)
        LOG.warning("%s", printable(fault.message))
        for detail in fault.details[:_MOST_DETAILS]:
            LOG.warning("  %s", printable(detail))
        if fault.details[_MOST_DETAILS:]:
            LOG.warning("  and %d more, all of them in %s", len(fault.details) - _MOST_DETAILS, self._path)

    def _unknown_classes(self) -> list[Issue]:
        """Tell of classes that Ground Truth's metadata name, though the job has no such class."""
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
                "metadata", f"the labels' metadata name classes beyond num_classes, {self._job.num_classes}: {listed}"
            )
        ]

    def _names(self) -> dict[int, str]:
        """Call the classes as the first channel that knows them does."""
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
                "errors": [fault.as_dict() for fault in self._errors],
                "warnings": [fault.as_dict() for fault in warnings],
                "notes": list(self._notes),
                "channels": {
                    channel: {"mode": self._modes[channel], **findings.as_dict(names)}
                    for channel, findings in judged.items()
                },
            },
        )
