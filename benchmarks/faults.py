"""Kill and interrupt the commands that write, at random moments: docs/reliability.md.

    python benchmarks/faults.py                            # 200 kills and signals, about half an hour on 2 cores
    python benchmarks/faults.py train repair --kills 20    # some commands

Every run is resumed until it ends, or started again where a command has no `--resume`. It must leave what an unbroken
run leaves, bit for bit, and no temporary file; after each kill, every file that the run has finished must be whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import track
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tables import as_markdown, replace_section, script_parser

from dealias.models import vgg_small

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
VARYING = ("timing.json*", ".dealias.*", "report.html", "state-*.pt", "events.*")
"""Files of which no two runs write the same: times, processes, and states that are saved by the clock."""


@dataclass(frozen=True)
class Command:
    """A command that writes: its words, and whether it takes `--resume`."""

    name: str
    words: list[str]
    resumes: bool


@dataclass
class Outcome:
    """What became of the kills of one command."""

    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    problems: list[str] = field(default_factory=list)


def commands(data: Path) -> list[Command]:
    """The commands, on small data below `data`."""
    generator = np.random.default_rng(0)
    for number in range(24):
        place = data / "images" / str(number % 10)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (36, 36), dtype=np.uint8)).save(place / f"{number}.png")
    weights, images = data / "weights.safetensors", str(data / "images")
    save_file(vgg_small().state_dict(), weights)
    model, given = "dealias:vgg_small", ["--weights", str(weights)]
    training = [
        "--recipe",
        "digits",
        "--limit",
        "256",
        "--epochs",
        "3",
        "--set",
        "save_every=0.2",
        "--set",
        "batch_size=16",
    ]
    metrics = ["--metrics", "accuracy,circular,imagenet-c-extra", "--workers", "0"]
    repairing = [
        "--images",
        images,
        "--epochs",
        "6",
        "--batch-size",
        "4",
        "--min-agreement",
        "0",
        "--min-consistency",
        "0",
    ]
    panning = ["--photos", images, "--frames", "9", "--batch-size", "4"]
    return [
        Command("train", ["train", model, *training, "--device", "cpu"], resumes=True),
        Command("finetune", ["finetune", model, *given, *training, "--device", "cpu"], resumes=True),
        Command("repair", ["repair", model, *given, *repairing, "--device", "cpu"], resumes=True),
        Command("evaluate", ["evaluate", model, "--images", images, *metrics, "--device", "cpu"], resumes=True),
        Command("audit", ["audit", model, *given, "--images", images, "--device", "cpu"], resumes=True),
        Command("flicker", ["flicker", model, *given, *panning, "--device", "cpu"], resumes=True),
        Command("profile", ["profile", model, "--images", images, "--device", "cpu"], resumes=False),
        Command("convert", ["convert", model, *given], resumes=False),
    ]


def run(
    words: Sequence[str], output: Path, kill_after: float | None = None, by: signal.Signals = signal.SIGKILL
) -> tuple[int, str]:
    """Run a command to its end, or send it a signal after so many seconds; returns its exit code and errors."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole = [sys.executable, "-m", "dealias", *words, "--output", str(output)]
    with subprocess.Popen(
        whole, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            _, errors = process.communicate(timeout=kill_after or 600)
        except subprocess.TimeoutExpired:
            process.send_signal(by)
            _, errors = process.communicate(timeout=600)
        return process.returncode, errors


def digests(folder: Path) -> dict[str, str]:
    """Digests of the files that depend on the arguments alone; of weights, whose header has no order, the tensors."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    kept = (path for path in files if not any(fnmatchcase(path.name, pattern) for pattern in VARYING))
    return {str(path.relative_to(folder)): _digest(path) for path in kept}


def _digest(path: Path) -> str:
    if path.suffix != ".safetensors":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    tensors = sorted(load_file(path).items())
    return hashlib.sha256(b"".join(name.encode() + tensor.numpy().tobytes() for name, tensor in tensors)).hexdigest()


def half_written(folder: Path) -> list[str]:
    """Finished files that cannot be read."""
    broken = []
    for path in folder.rglob("*") if folder.exists() else ():
        try:
            if path.name.startswith("."):
                continue
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".safetensors":
                with safe_open(path, "pt") as file:
                    file.keys()
            elif path.suffix == ".html":
                assert path.read_text().rstrip().endswith("</html>")
        except Exception as error:
            broken.append(f"{path.name}: {error}")
    return broken


def harass(command: Command, folder: Path, kills: int, draw: random.Random) -> Outcome:
    """Kill a command at random moments until `kills` have hit."""
    outcome = Outcome()
    started = time.monotonic()
    code, errors = run(command.words, folder / "whole")
    seconds = time.monotonic() - started
    if code:
        outcome.problems.append(f"the unbroken run ended with {code}: {errors.strip()[-200:]}")
        return outcome
    wanted = digests(folder / "whole")
    again = ["--resume"] if command.resumes else []
    for _ in range(10 * kills):
        if outcome.kills.total() >= kills or len(outcome.problems) > 5:
            break
        broken = folder / "broken"
        shutil.rmtree(broken, ignore_errors=True)
        outcome.runs += 1
        for _ in range(draw.randint(1, 3)):
            by = draw.choice(SIGNALS)
            code, errors = run(
                [*command.words, *(again if broken.exists() else [])], broken, draw.uniform(0.3, 1) * seconds, by
            )
            if code == 0:
                break
            outcome.kills[by.name] += 1
            if "Traceback" in errors:
                outcome.problems.append(f"{by.name}: {errors.strip()[-300:]}")
            outcome.problems += half_written(broken)
        code, errors = run([*command.words, *(again if broken.exists() else [])], broken) if code else (0, "")
        if code:
            outcome.problems.append(f"the run that goes on ended with {code}: {errors.strip()[-300:]}")
            continue
        left = digests(broken)
        left_over = [path.name for path in broken.rglob(".*") if path.name not in (".dealias.json", ".dealias.lock")]
        if left_over:
            outcome.problems.append(f"temporary files stay: {', '.join(left_over)}")
        differing = sorted(name for name in {*left, *wanted} if left.get(name) != wanted.get(name))
        if differing:
            outcome.problems.append(f"other files than an unbroken run's: {', '.join(differing)}")
    return outcome


def main() -> None:
    """Harass the commands named on the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("names", nargs="*", help="commands; default: all")
    parser.add_argument("--kills", type=int, default=200, help="over all commands")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        chosen = [each for each in commands(Path(folder)) if not arguments.names or each.name in arguments.names]
        for command in track(chosen, "killing"):
            place = Path(folder) / command.name
            place.mkdir()
            outcome = harass(command, place, -(-arguments.kills // len(chosen)), random.Random(arguments.seed))
            counts = {each.name: outcome.kills[each.name] for each in SIGNALS}
            rows.append({"command": command.name, "runs": outcome.runs, **counts, "problems": len(outcome.problems)})
            print(rows[-1], *outcome.problems, sep="\n    ", flush=True)
    if arguments.markdown is not None:
        numbers = ["runs", *(each.name for each in SIGNALS), "problems"]
        replace_section(arguments.markdown, "faults.py", as_markdown(rows, numbers))
    raise SystemExit(any(row["problems"] for row in rows))


if __name__ == "__main__":
    main()
