"""mIOU of this container compared with the GluonCV script, and of each option compared with the defaults.

Every job trains from the same weights with the same hyperparameters, seed, and epochs in a separate process. One
program evaluates the last weights of all jobs on full validation images. `--data` is a directory with train,
train_annotation, validation, and validation_annotation (PNG with class IDs, 255 = ignore). Without it, the data is
synthetic, with a class that has 0.5% of the pixels. Results are saved in `--out`. Jobs in it do not run again.

With the defaults, with and without --data, this takes 30 to 60 minutes on 8 cores. To try it:
--epochs 2 --crop-size 64 --seeds 1 --only gluoncv,default
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.support.job_directory import write_job
from benchmarks.support.measure import run_python
from benchmarks.support.synthetic_data import NUM_CLASSES, write_data_set

GLUONCV, DEFAULT = "gluoncv", "default"
VARIANTS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "_class_weights=balanced": {"_class_weights": "balanced"},
    "_class_weights=enet": {"_class_weights": "enet"},
    "_loss=ce+dice": {"_loss": "ce+dice"},
    "_loss=ce+lovasz": {"_loss": "ce+lovasz"},
    "_loss=focal": {"_loss": "focal"},
    "_loss=ohem": {"_loss": "ohem"},
    "_rare_crops=0.5": {"_rare_crops": 0.5},
    "optimizer=adamw": {"optimizer": "adamw"},
    "_warmup_iterations": {"_warmup_iterations": 20},
    "_ema=0.99": {"_ema": 0.99},
    "_accumulate=2": {"_accumulate": 2},
    "_clip_norm=0.1": {"_clip_norm": 0.1},
    "_augmentation=strong": {"_augmentation": "strong"},
    "_validation=full (best)": {"_validation": "full"},
    "_validation=crop (best)": {},
}

Result = dict[str, Any]


def main() -> None:
    """Run the missing jobs, and print the table."""
    arguments = _parse()
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    names = [GLUONCV, *VARIANTS]
    if arguments.only:
        names = [name for name in names if name in arguments.only.split(",")]
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    with tempfile.TemporaryDirectory() as scratch:
        data = arguments.data
        if data is None:
            data = Path(scratch) / "data"
            write_data_set(data, *arguments.images)
        for seed in seeds:
            for name in names:
                key = f"{name} {seed}"
                if key not in results:
                    with tempfile.TemporaryDirectory() as root:
                        results[key] = _run(name, seed, data.absolute(), Path(root), arguments)
                    arguments.out.write_text(json.dumps(results, indent=1))
                    print(f"{key}: mIOU {results[key]['mIOU']:.4f}", file=sys.stderr, flush=True)
    _print_table(results, names, seeds)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory of channels (default: synthetic data)")
    parser.add_argument("--num-classes", type=int, default=NUM_CLASSES, help="of --data (%(default)s)")
    parser.add_argument("--images", type=int, nargs=2, default=(64, 24), help="synthetic: train and validation (64 24)")
    parser.add_argument("--algorithm", default="fcn")
    parser.add_argument("--backbone", default="resnet-18")
    parser.add_argument("--pretrained", type=Path, help="parameter file of the backbone (default: random weights)")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--crop-size", type=int, default=128)
    parser.add_argument("--base-size", type=int, default=192)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--optimizer", default="sgd", help="of this container; GluonCV uses sgd (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=0.05, help="of --optimizer (%(default)s)")
    parser.add_argument("--adamw-rate", type=float, default=0.0005, help="learning rate of adamw (%(default)s)")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--only", help="comma-separated names: gluoncv, default, and the options as printed")
    parser.add_argument("--out", type=Path, default=Path("quality.json"))
    return parser.parse_args()


def _run(name: str, seed: int, data: Path, root: Path, arguments: argparse.Namespace) -> Result:
    """Train and evaluate one job."""
    options = dict(VARIANTS.get(name, {}))
    if options.get("optimizer") == "adamw":
        options["learning_rate"] = arguments.adamw_rate
    write_job(root, data, _settings(seed, options, arguments), arguments.pretrained)
    if name == GLUONCV:
        weights = root / "gluoncv.params"
        seconds = json.loads(run_python(_gluoncv(data, weights, seed, arguments)))["seconds"]
    else:
        run_python(["train"], {**os.environ, "SAGEMAKER_BASE_DIR": str(root)})
        weights = root / "model" / ("model_best.params" if "(best)" in name else "model_algo-1")
        report = json.loads((root / "output/data/report.json").read_text())
        seconds = [entry["train_seconds"] for entry in report["epochs"]]
    metrics = json.loads(run_python(["-m", "benchmarks.support.evaluate_weights", str(root), str(weights)]))
    return {**metrics, "seconds": seconds}


def _settings(seed: int, options: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the hyperparameters of a job of this container."""
    return {
        "num_classes": arguments.num_classes,
        "algorithm": arguments.algorithm,
        "backbone": arguments.backbone,
        "use_pretrained_model": bool(arguments.pretrained),
        "epochs": arguments.epochs,
        "crop_size": arguments.crop_size,
        "base_size": arguments.base_size,
        "mini_batch_size": arguments.batch_size,
        "optimizer": arguments.optimizer,
        "learning_rate": arguments.learning_rate,
        "_seed": seed,
        "_quantize": False,
        "_report_minutes": 0,
        **options,
    }


def _gluoncv(data: Path, weights: Path, seed: int, arguments: argparse.Namespace) -> list[str]:
    """Return the arguments of the GluonCV script."""
    recipe = {
        "algorithm": arguments.algorithm,
        "backbone": arguments.backbone,
        "num_classes": arguments.num_classes,
        "base_size": arguments.base_size,
        "crop_size": arguments.crop_size,
        "epochs": arguments.epochs,
        "batch_size": arguments.batch_size,
        "lr": arguments.learning_rate,
        "workers": len(os.sched_getaffinity(0)),
        "seed": seed,
    }
    command = ["-m", "benchmarks.support.gluoncv_script", str(data), str(weights), json.dumps(recipe)]
    return [*command, "--pretrained", str(arguments.pretrained)] if arguments.pretrained else command


def _print_table(results: dict[str, Result], names: list[str], seeds: list[int]) -> None:
    """Print the mIOU, the gain over the defaults with the same seed, the lowest IoU of a class, and the time.

    The gain is the mean over the seeds, with its standard error.
    """
    heads = [("mIOU per seed", 8 * len(seeds)), ("gain", 18), ("lowest IoU", 10), ("s/epoch", 8), ("ratio", 6)]
    print(f"{'':28} {' '.join(f'{head:>{width}}' for head, width in heads)}")
    for name in names:
        runs = [results[f"{name} {seed}"] for seed in seeds]
        defaults = [results.get(f"{DEFAULT} {seed}") for seed in seeds]
        pairs = [(run, default) for run, default in zip(runs, defaults, strict=True) if default]
        mious = "".join(f"{run['mIOU']:8.4f}" for run in runs)
        lowest = statistics.mean(min(value for value in run["iou"] if value is not None) for run in runs)
        seconds = statistics.median(map(_epoch_seconds, runs))
        ratios = [_epoch_seconds(run) / _epoch_seconds(default) for run, default in pairs]
        ratio = f"{statistics.median(ratios):.2f}" if ratios else ""
        print(f"{name:28} {mious} {_gain(pairs):>18} {lowest:10.4f} {seconds:8.2f} {ratio:>6}")


def _gain(pairs: list[tuple[Result, Result]]) -> str:
    gains = [run["mIOU"] - default["mIOU"] for run, default in pairs]
    if len(gains) < 2:
        return f"{gains[0]:+.4f}" if gains else ""
    return f"{statistics.mean(gains):+.4f} ± {statistics.stdev(gains) / len(gains) ** 0.5:.4f}"


def _epoch_seconds(run: Result) -> float:
    """Return the median time of an epoch, without the first one, which builds the graph."""
    return float(statistics.median(run["seconds"][1:] or run["seconds"]))


if __name__ == "__main__":
    main()
