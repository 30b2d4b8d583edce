"""Feed dealias random and damaged input: docs/reliability.md.

Every answer has to be a result or one clear line, within ten seconds, and no file may appear elsewhere.

    python benchmarks/fuzz.py                                     # 10,000 inputs, about ten minutes
    python benchmarks/fuzz.py images yaml --inputs 500 --seed 3   # some kinds

Hypothesis draws the inputs and makes a failing one smaller. The table goes to docs/reliability.md with `--markdown`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from rich.progress import track
from safetensors.torch import save
from tables import as_markdown, replace_section, script_parser

from dealias.cli import commands
from dealias.data.pictures import read_picture
from dealias.errors import InputError, MissingExtraError
from dealias.filters import parse_filter, resolve_filter, scaled
from dealias.models import ModelSpec, load_weights, vgg_small
from dealias.report.evaluation import write_report
from dealias.training import load_recipe, parse_overrides

LIMIT = 10  # seconds that an input may take
Strategy = st.SearchStrategy[Any]

# Draws ----------------------------------------------------------------------------------------------------------------

ODD_TEXT = st.text(max_size=40) | st.sampled_from(
    [
        "",
        "nan",
        "inf",
        "-1",
        "0",
        "1e400",
        "9" * 5000,
        "null",
        "[",
        "{}",
        "\x00",
        "\udcff",
        "../..",
        "~",
        "a\nb",
        "\x1b[31m",
    ]
)
NAMES = st.sampled_from(
    ["dealias:vgg_small", "timm:test_resnet", "torchvision:resnet18", "os:getcwd", "json:", ":a", "..a:b"]
)
KEYS = st.sampled_from(
    ["weights", "antialias", "recipe", "padding_mode", "num_classes", "in_chans", "label", "new_head", "depth"]
)
SPECS = ODD_TEXT | st.builds(
    lambda name, pairs: ",".join([name, *(f"{key}={value}" for key, value in pairs)]),
    NAMES,
    st.lists(st.tuples(KEYS, ODD_TEXT | st.sampled_from(["bin4", "3", "circular", "true"])), max_size=3),
)
NUMBERS = st.floats() | st.integers() | st.integers(10**18, 10**400)
FILTERS = ODD_TEXT | st.lists(NUMBERS, max_size=6).map(lambda taps: ",".join(map(str, taps))) | NUMBERS.map(str)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def damaged(draw: Callable[[Strategy], Any], contents: list[bytes]) -> bytes:
    """One of the contents, cut, overwritten, repeated or mixed with bytes."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        change = draw(st.sampled_from(["cut", "write", "insert", "repeat", "drop"]))
        some = draw(st.binary(min_size=1, max_size=8))
        if change == "cut":
            del content[place:]
        elif change == "write":
            content[place : place + len(some)] = some
        elif change == "insert":
            content[place:place] = some
        elif change == "repeat":
            content[place:place] = content[place : place + 64] * 4
        else:
            del content[place : place + 16]
    return bytes(content)


def pictures() -> list[bytes]:
    """Small pictures in the formats that are read."""
    contents = []
    for mode in ("RGB", "L", "P", "RGBA", "I;16"):
        for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
            buffer = io.BytesIO()
            with contextlib.suppress(OSError, KeyError, ValueError):
                Image.new(mode, (12, 9)).save(buffer, form)
                contents.append(buffer.getvalue())
    return contents


def checkpoints() -> list[bytes]:
    """A network's weights in the formats that are read."""
    state = vgg_small().state_dict()
    contents = [save(state)]
    for kind in ({}, {"_use_new_zipfile_serialization": False}):
        buffer = io.BytesIO()
        torch.save(state, buffer, **kind)
        contents.append(buffer.getvalue())
    return contents


def changed_json(content: bytes) -> Strategy:
    """The document with another value somewhere, or damaged bytes of it."""

    def put(place: int, value: Any) -> bytes:
        document = json.loads(content)
        holders = [document]
        for holder in holders:
            holders += [
                each
                for each in (holder.values() if isinstance(holder, dict) else holder)
                if isinstance(each, dict | list)
            ]
        keys = [
            (holder, key) for holder in holders for key in (holder if isinstance(holder, dict) else range(len(holder)))
        ]
        holder, key = keys[place % len(keys)]
        holder[key] = value
        return json.dumps(document).encode()

    return (
        st.builds(put, st.integers(0, 10**6), JSON)
        | damaged([content])
        | JSON.map(lambda value: json.dumps(value).encode())
    )


# Targets --------------------------------------------------------------------------------------------------------------


@dataclass
class Target:
    """What is fed, its inputs, and how many of a thousand it gets."""

    name: str
    inputs: Strategy
    run: Callable[[Any], object]
    weight: int


def load_file(name: str) -> Callable[[bytes], object]:
    """Load bytes as a checkpoint of that name."""

    def run(content: bytes) -> object:
        Path(name).write_bytes(content)
        return load_weights(vgg_small(), name)

    return run


def read_recipe(content: bytes) -> object:
    """Read bytes as a recipe."""
    Path("recipe.yaml").write_bytes(content)
    return load_recipe("recipe.yaml")


def command(words: list[str]) -> None:
    """Run a command in this process; it may exit with 0, 1 and an error, or 2."""
    sys.argv = ["dealias", *words]
    errors, code = io.StringIO(), 0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        try:
            commands.run_command(lambda: False)
        except SystemExit as end:
            code = end.code or 0
    lines = [line for line in errors.getvalue().splitlines() if line.startswith("error:")]
    assert (code, len(lines)) in ((0, 0), (1, 1), (2, 0)), f"exit {code}: {errors.getvalue()}"
    if code:
        raise InputError("refused as it should be")


OPTIONS = {
    "sites": ["--input-size", "--recipe", "--weights"],
    "convert": ["--filter", "--input-size", "--recipe", "--weights"],
    "evaluate": ["--metrics", "--device", "--image-size", "--images"],
    "profile": ["--images", "--device", "--reach"],
    "train": ["--recipe", "--set", "--data", "--weights", "--device"],
    "repair": ["--filter", "--held-out", "--images", "--device"],
}


@st.composite
def command_lines(draw: Callable[[Strategy], Any]) -> list[str]:
    """Words of a command: those that would work for long lack their images or weights."""
    name = draw(st.sampled_from([*OPTIONS, "models", "recipes", "report", "info"]))
    words = [name, draw(ODD_TEXT if name not in OPTIONS else SPECS)]
    for option in draw(st.lists(st.sampled_from(OPTIONS.get(name, ["--bad"])), max_size=3, unique=True)):
        words += [option, draw(ODD_TEXT | FILTERS)]
    if name in ("evaluate", "profile") and "--images" not in words:
        words += ["--images", "nowhere"]
    if name == "repair":
        words += ["--weights", "nowhere", "--images", "nowhere"]
    if name == "train" and "--data" not in words:
        words += ["--data", "nowhere"]
    return [word.replace("\x00", "0") for word in words]


def targets(evaluation: Path) -> list[Target]:
    """All kinds of input; `evaluation` is the folder of a finished evaluation."""

    def report(content: bytes) -> object:
        (evaluation / "results.json").write_bytes(content)
        return write_report(evaluation)

    results = (evaluation / "results.json").read_bytes()
    recipes = [b"epochs: 2\nbatch_size: 4\nlearning_rate: 0.1\n", b"extends: digits\nvariants: {vgg*: {epochs: 3}}\n"]
    override = st.builds(
        lambda key, value: [f"{key}={value}"], st.sampled_from(["epochs", "filter", "decay_epochs", "x"]), ODD_TEXT
    )
    files = damaged(checkpoints())
    return [
        Target("networks as text", SPECS, lambda text: ModelSpec.parse(text).build(), 60),
        Target("filters", FILTERS, lambda text: scaled(parse_filter(text), 3), 150),
        Target("taps", st.lists(NUMBERS, max_size=5) | JSON, lambda taps: resolve_filter(taps), 100),
        Target(
            "recipes (YAML)", damaged(recipes) | JSON.map(lambda value: json.dumps(value).encode()), read_recipe, 150
        ),
        Target("settings", override | ODD_TEXT.map(lambda text: [text]), parse_overrides, 100),
        Target("results (JSON)", changed_json(results), report, 60),
        Target("pictures", damaged(pictures()) | st.binary(), lambda content: read_picture(io.BytesIO(content)), 200),
        Target("safetensors", files | st.binary(), load_file("weights.safetensors"), 75),
        Target("checkpoints", files | st.binary(), load_file("weights.pth"), 75),
        Target("command lines", command_lines(), command, 30),
    ]


# Running --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the code that takes longer."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"no answer in {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@dataclass
class Outcome:
    """What became of the inputs of one kind."""

    inputs: int = 0
    refused: int = 0
    failures: int = 0
    example: str = ""


def feed(target: Target, count: int, number: int) -> Outcome:
    """Feed `count` inputs drawn by the seed `number`."""
    outcome = Outcome()
    stray = set(os.listdir())

    def check(value: Any) -> None:
        outcome.inputs += 1
        message = ""
        try:
            with within(LIMIT):
                target.run(value)
        except (InputError, MissingExtraError) as error:
            outcome.refused += 1
            message = str(error)
        assert message.isprintable(), f"not one printable line: {message!r}"

    quiet = [
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
        HealthCheck.large_base_example,
    ]
    options = settings(
        max_examples=count, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=quiet
    )
    try:
        seed(number)(options(given(target.inputs)(check)))()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome.failures += 1
        outcome.example = "".join(traceback.format_exception(error)[-6:])
    new = set(os.listdir()) - stray - {"weights.pth", "weights.safetensors", "recipe.yaml", "runs"}
    if new:
        outcome.failures += 1
        outcome.example += f"files outside of the output folder: {new}"
    return outcome


def finished_evaluation(folder: Path) -> Path:
    """An evaluation of a small network on pictures of noise."""
    from dealias.evaluation import evaluate

    generator = np.random.default_rng(0)
    for number in range(6):
        place = folder / "images" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (40, 40), dtype=np.uint8)).save(place / f"{number}.png")
    evaluate(["dealias:vgg_small"], folder / "images", folder / "run", metrics=["consistency"], workers=0, device="cpu")
    return folder / "run"


def main() -> None:
    """Feed the kinds named on the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("kinds", nargs="*", help="parts of the kinds' names; default: all")
    parser.add_argument("--inputs", type=int, default=10_000, help="over all kinds")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    random.seed(arguments.seed)
    rows, home = [], Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        evaluation = finished_evaluation(Path(folder))
        (Path(folder) / "work").mkdir()
        os.chdir(Path(folder) / "work")
        chosen = [
            each
            for each in targets(evaluation)
            if not arguments.kinds or any(kind in each.name for kind in arguments.kinds)
        ]
        whole = sum(target.weight for target in chosen)
        for target in track(chosen, "fuzzing"):
            outcome = feed(target, max(arguments.inputs * target.weight // whole, 1), arguments.seed)
            rows.append(
                {
                    "input": target.name,
                    "inputs": outcome.inputs,
                    "refused in one line": outcome.refused,
                    "failures": outcome.failures,
                }
            )
            print(rows[-1], outcome.example, flush=True)
        os.chdir(home)
    if arguments.markdown is not None:
        numbers = ["inputs", "refused in one line", "failures"]
        caption = f"Seed {arguments.seed}, {sum(row['inputs'] for row in rows):,} inputs."
        replace_section(arguments.markdown, "fuzz.py", f"{caption}\n\n{as_markdown(rows, numbers)}")
    raise SystemExit(any(row["failures"] for row in rows))


if __name__ == "__main__":
    main()
