"""What a recipe gains: GluonCV's own script beside ours, and each of our switches beside ours plain.

Every run trains from the same weights with the same hyperparameters, seeds and epochs, in a process of its own, and
its last weights are scored on whole validation images by one scorer. `--data` is a folder with train, train_annotation,
validation and validation_annotation (PNG of class ids, 255 = ignore); without it a set is drawn, one of whose classes
has 0.5 % of the pixels. Results grow in `--out`; what is there already is not run again.

In full (the defaults, once with --data and once without) it takes 30 to 60 minutes on eight cores. To try it:
--epochs 2 --crop-size 64 --seeds 1 --only gluoncv,plain
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.peers.job_tree import lay_out
from benchmarks.peers.rare_class import NUM_CLASSES, draw_set

ROOT = Path(__file__).parent.parent

SWITCHES: dict[str, dict[str, Any]] = {
    "plain": {},
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


def main() -> None:
    """Run what is missing, and print the tables."""
    arguments = _parse()
    known = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    names = ["gluoncv", *SWITCHES]
    if arguments.only:
        names = [name for name in names if name in arguments.only.split(",")]
    with tempfile.TemporaryDirectory() as scratch:
        data = arguments.data
        if data is None:
            data = Path(scratch) / "drawn"
            draw_set(data, *arguments.drawn_images)
        for seed in map(int, arguments.seeds.split(",")):
            for name in names:
                key = f"{name} {seed}"
                if key not in known:
                    with tempfile.TemporaryDirectory() as root:
                        known[key] = _run(name, seed, data.absolute(), Path(root), arguments)
                    arguments.out.write_text(json.dumps(known, indent=1))
                    print(f"{key}: mIOU {known[key]['mIOU']:.4f}", file=sys.stderr, flush=True)
    _print_table(known, names, [int(seed) for seed in arguments.seeds.split(",")])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of channels; without it a set is drawn")
    parser.add_argument("--num-classes", type=int, default=NUM_CLASSES, help="of --data (%(default)s: the drawn set's)")
    parser.add_argument("--drawn-images", type=int, nargs=2, default=(64, 24), help="train and validation (64 24)")
    parser.add_argument("--algorithm", default="fcn")
    parser.add_argument("--backbone", default="resnet-18")
    parser.add_argument("--pretrained", type=Path, help="parameter file of the backbone; without it weights are drawn")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--crop-size", type=int, default=128)
    parser.add_argument("--base-size", type=int, default=192)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--optimizer", default="sgd", help="of our runs; GluonCV's script has sgd (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=0.05, help="of --optimizer (%(default)s)")
    parser.add_argument("--adamw-rate", type=float, default=0.0005, help="learning rate of adamw (%(default)s)")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--only", help="names of runs, by commas: gluoncv, plain, and the switches as printed")
    parser.add_argument("--out", type=Path, default=Path("quality.json"))
    return parser.parse_args()


def _run(name: str, seed: int, data: Path, root: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and score once."""
    changes = dict(SWITCHES.get(name, {}))
    if changes.get("optimizer") == "adamw":
        changes["learning_rate"] = arguments.adamw_rate
    lay_out(root, data, _settings(seed, changes, arguments), arguments.pretrained)
    if name == "gluoncv":
        weights = root / "gluoncv.params"
        figures = json.loads(_python(_gluoncv(data, weights, seed, arguments))[-1])
        seconds = figures["seconds"]
    else:
        environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(root)}
        _python([str(ROOT / "train")], environment)
        best = "(best)" in name
        weights = root / "model" / ("model_best.params" if best else "model_algo-1")
        report = json.loads((root / "output/data/report.json").read_text())
        seconds = [entry["train_seconds"] for entry in report["epochs"]]
    scored = _python(["-m", "benchmarks.peers.full_size", str(root), str(weights)])[-1]
    return {**json.loads(scored), "seconds": seconds}


def _settings(seed: int, changes: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the hyperparameters of one of our jobs."""
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
        **changes,
    }


def _gluoncv(data: Path, weights: Path, seed: int, arguments: argparse.Namespace) -> list[str]:
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
    command = ["-m", "benchmarks.peers.gluoncv_script", str(data), str(weights), json.dumps(recipe)]
    return [*command, "--pretrained", str(arguments.pretrained)] if arguments.pretrained else command


def _python(command: list[str], environment: dict[str, str] | None = None) -> list[str]:
    """Run Python in a process of its own; returns its lines, or ends with what it said."""
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command[:2]} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout.strip().splitlines()


def _print_table(known: dict[str, Any], names: list[str], seeds: list[int]) -> None:
    """Print each run's full-size mIOU, what it gains over plain of the same seed, its worst class's IoU, and its time.

    A gain is the mean over the seeds, with its standard error where there are several.
    """
    heads = [("mIOU by seed", 8 * len(seeds)), ("gain over plain", 18), ("worst IoU", 10), ("s/epoch", 8), ("ratio", 6)]
    print(f"{'':28} {' '.join(f'{head:>{width}}' for head, width in heads)}")
    plain = [known.get(f"plain {seed}") for seed in seeds]
    for name in names:
        runs = [known[f"{name} {seed}"] for seed in seeds]
        pairs = [(run, base) for run, base in zip(runs, plain, strict=True) if base]
        scores = "".join(f"{run['mIOU']:8.4f}" for run in runs)
        worst = statistics.mean(min(value for value in run["iou"] if value is not None) for run in runs)
        seconds = statistics.median(map(_epoch_seconds, runs))
        print(f"{name:28} {scores} {_gain(pairs):>18} {worst:10.4f} {seconds:8.2f} {_slower(pairs):>6}")


def _gain(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    gains = [run["mIOU"] - base["mIOU"] for run, base in pairs]
    if len(gains) < 2:
        return f"{gains[0]:+.4f}" if gains else ""
    return f"{statistics.mean(gains):+.4f} ± {statistics.stdev(gains) / len(gains) ** 0.5:.4f}"


def _slower(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    ratios = [_epoch_seconds(run) / _epoch_seconds(base) for run, base in pairs]
    return f"{statistics.median(ratios):.2f}" if ratios else ""


def _epoch_seconds(run: dict[str, Any]) -> float:
    """Return an epoch's median time; the first, which builds the graph, is left out where there are others."""
    return float(statistics.median(run["seconds"][1:] or run["seconds"]))


if __name__ == "__main__":
    main()
