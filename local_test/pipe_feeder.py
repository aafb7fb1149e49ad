"""Feed Pipe mode channels from augmented manifests, as SageMaker AI does: one FIFO per pass, until the job ends.

https://docs.aws.amazon.com/sagemaker/latest/dg/augmented-manifest.html
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from local_test.channel_feeder import ChannelFeeder
from local_test.manifest import ManifestError, read_manifest, split_mapping

_POLL_SECONDS = 0.05


def write_config(root: Path, streamed: Iterable[str], directories: Iterable[str], gzip: bool) -> None:
    """Write `inputdataconfig.json`: the streamed channels in Pipe mode, the others in File mode."""
    pipe = {
        "TrainingInputMode": "Pipe",
        "ContentType": "application/x-recordio",
        "RecordWrapperType": "RecordIO",
        "S3DistributionType": "FullyReplicated",
        "CompressionType": "Gzip" if gzip else "None",
    }
    file = {"TrainingInputMode": "File", "RecordWrapperType": "None", "S3DistributionType": "FullyReplicated"}
    config = root / "input" / "config"
    config.mkdir(parents=True, exist_ok=True)
    channels = {**{name: pipe for name in streamed}, **{name: file for name in directories}}
    (config / "inputdataconfig.json").write_text(json.dumps(channels, indent=2) + "\n", encoding="utf-8")


def feed(feeders: list[ChannelFeeder], command: list[str]) -> int:
    """Feed until the command ends, or, without a command, until SIGTERM or Ctrl-C; return the exit code.

    SIGTERM is forwarded to the command.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, frame: stop.set())
    job = None
    try:
        for feeder in feeders:
            feeder.start()
        if command:
            job = subprocess.Popen(command)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal also sends it to the job
        while not any(feeder.error for feeder in feeders):
            if job and job.poll() is not None:
                return job.returncode if job.returncode >= 0 else 128 - job.returncode
            if stop.wait(_POLL_SECONDS):
                if not job:
                    return 0
                stop.clear()
                job.terminate()
        print(f"pipe_feeder: {next(feeder.error for feeder in feeders if feeder.error)}", file=sys.stderr)
        return 1
    finally:
        if job and job.poll() is None:
            job.terminate()
            job.wait()
        for feeder in feeders:
            feeder.stop()


def main() -> None:
    """Feed the channels of one job; with a command after `--`, run the command, and stop when it ends."""
    parser = argparse.ArgumentParser(prog="python -m local_test.pipe_feeder", description=__doc__)
    parser.add_argument(
        "--root", type=Path, required=True, metavar="DIR", help="the directory that the job uses as /opt/ml"
    )
    parser.add_argument("--channel", action="append", required=True, metavar="NAME=MANIFEST", help="can be repeated")
    parser.add_argument("--attributes", default="source-ref,annotation-ref", help="AttributeNames (%(default)s)")
    parser.add_argument("--file-channel", action="append", default=[], metavar="NAME", help="a channel in File mode")
    parser.add_argument("--map", action="append", default=[], metavar="s3://BUCKET/PREFIX=DIR", help="can be repeated")
    parser.add_argument("--shuffle", action="store_true", help="shuffle every pass, as ShuffleConfig does")
    parser.add_argument("--seed", type=int, default=0, help="seed of --shuffle (%(default)s)")
    parser.add_argument("--gzip", action="store_true", help="compress each pass")
    parser.add_argument("command", nargs="*", help="the job to run, after --")
    arguments = parser.parse_args()
    if wrong := [text for text in arguments.channel if not all(text.partition("="))]:
        parser.error(f"--channel {wrong[0]} is not valid. Write NAME=MANIFEST")
    data = arguments.root / "input" / "data"
    data.mkdir(parents=True, exist_ok=True)
    seed = arguments.seed if arguments.shuffle else None
    channels = dict(text.split("=", 1) for text in arguments.channel)
    try:
        mapping = dict(split_mapping(text) for text in arguments.map)
        rows = {
            name: read_manifest(Path(path), arguments.attributes.split(","), mapping) for name, path in channels.items()
        }
    except ManifestError as error:
        sys.exit(f"pipe_feeder: {error}")
    write_config(arguments.root, channels, arguments.file_channel, arguments.gzip)
    feeders = [ChannelFeeder(data, name, rows[name], seed, arguments.gzip) for name in channels]
    sys.exit(feed(feeders, arguments.command))


if __name__ == "__main__":
    main()
