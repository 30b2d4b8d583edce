"""Ctrl-C at any moment: the exit code 130, one line, no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

IMPORTED = "import time:"  # how `python -X importtime` begins the line of a module that has just been imported


def start(*arguments: object) -> subprocess.Popen[str]:
    """`dealias ARGUMENTS` in another process, which tells of its imports on stderr."""
    return subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "dealias", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # a shell that runs the tests in the background has them ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def imports(lines: list[str]) -> list[tuple[str, int]]:
    """The modules behind `dealias.cli`, in the order in which they were imported, and the microseconds they took."""
    rows = [line.removeprefix(IMPORTED).split("|") for line in lines if line.startswith(IMPORTED)]
    found = [(name.strip(), int(time)) for time, _, name in rows if time.strip().isdecimal()]
    return found[[name for name, _ in found].index("dealias.cli") + 1 :]


@pytest.fixture(scope="module")
def moments() -> list[str]:
    """Twelve modules that `dealias info` imports, spread evenly over the time that its imports take."""
    with start("info") as process:
        assert process.stderr is not None
        found = imports(process.stderr.readlines())
    assert process.returncode == 0
    assert {"typer", "torch", "dealias.ops.reference"} <= {name for name, _ in found}
    total, passed, chosen = sum(took for _, took in found), 0, [found[0][0]]
    for name, took in found:
        passed += took
        if passed > total * len(chosen) / 12:
            chosen.append(name)
    return chosen[:12]


@pytest.mark.parametrize("index", range(12))
def test_interrupting_the_imports(moments: list[str], index: int) -> None:
    moment = moments[min(index, len(moments) - 1)]
    with start("info") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(IMPORTED) and line.rpartition("|")[2].strip() == moment:
                break
        process.send_signal(signal.SIGINT)
        said = [line for line in process.stderr if not line.startswith(IMPORTED)]
    # by the time that the signal arrives the command may have ended
    assert (process.returncode, said) in ((130, ["interrupted\n"]), (0, []))


def test_interrupting_leaves_no_half_written_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with start("demo", "--quick", "--output", out) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(IMPORTED) and line.endswith(" dealias.demo\n"):
                break
        while not out.exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said = [line for line in process.stderr if not line.startswith(IMPORTED)]
    assert (process.returncode, said) == (130, ["interrupted\n"])
    assert {path.name for path in out.iterdir()} <= {".dealias.json", ".dealias.lock"}  # left where it stopped at once


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (("demo",), "dealias.demo:run_demo"),
        (("audit", "dealias:vgg_small", "--images", "."), "dealias.evaluation:evaluate"),
        (("evaluate", "dealias:vgg_small", "--images", "."), "dealias.evaluation:evaluate"),
        (("report", "."), "dealias.report.evaluation:write_report"),
        (("profile", "dealias:vgg_small"), "dealias.evaluation.profiles:profile_networks"),
        (("sites", "dealias:vgg_small"), "dealias.models:create_model"),
        (("convert", "dealias:vgg_small"), "dealias.convert:antialias_with_report"),
        (("train", "dealias:vgg_small", "--recipe", "digits"), "dealias.training:train"),
        (("finetune", "dealias:vgg_small", "--recipe", "digits", "--weights", "."), "dealias.training:train"),
        (("recipes",), "dealias.training.settings:recipe_names"),
        (
            ("repair", "dealias:vgg_small", "--images", ".", "--weights", "."),
            "dealias.repair.from_folder:repair_from_folder",
        ),
        (("bench",), "dealias.benchmark:measure"),
        (("models",), "dealias.models:list_models"),
        (("info",), "dealias.ops:backends"),
    ],
)
def test_interrupting_a_command(
    run: Callable[..., int],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    place: str,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.chdir(tmp_path)
    module, _, name = place.partition(":")
    monkeypatch.setattr(import_module(module), name, interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run(*arguments) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capfd.readouterr().err == "interrupted\n"


WAYS = {
    "in a destructor": """
class Lost:
    def __del__(self):
        interrupt()
Lost()
""",
    "as another exception": """
try:
    interrupt()
except KeyboardInterrupt:
    raise RuntimeError("cannot initialise")
""",
    "twice": """
try:
    interrupt()
finally:
    interrupt()
""",
}


@pytest.mark.parametrize("way", WAYS)
def test_interruptions_that_python_would_lose_or_show_otherwise(tmp_path: Path, way: str) -> None:
    """A factory's body, run while the command builds its network."""
    body = "".join(f"    {line}\n" for line in WAYS[way].strip().splitlines())
    (tmp_path / "factory.py").write_text(
        f"import os, signal\ndef interrupt():\n    os.kill(os.getpid(), signal.SIGINT)\ndef build():\n{body}"
    )
    finished = subprocess.run(
        [sys.executable, "-m", "dealias", "sites", "factory:build"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (finished.returncode, finished.stderr) == (130, "interrupted\n")


def test_a_command_that_shells_start_in_the_background_ignores_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "factory.py").write_text(
        "import os, signal\n"
        "from dealias.models import vgg_small\n"
        "def build():\n    os.kill(os.getpid(), signal.SIGINT)\n    return vgg_small(in_chans=3)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-m", "dealias", "sites", "factory:build"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert (finished.returncode, finished.stderr) == (0, "")
