"""The whole evaluation against plain loops, interrupted, in several processes, and on bad input."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.evaluation_runs import BLURRED, METRICS, MODEL, QUICK
from PIL import Image

from dealias.errors import InputError
from dealias.evaluation import evaluate
from dealias.evaluation.results import read_results
from dealias.report.evaluation import write_report


@pytest.fixture(scope="module")
def plain(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run of two networks."""
    folder = tmp_path_factory.mktemp("run") / "plain"
    evaluate([MODEL, BLURRED], pictures, folder, **QUICK)
    return folder


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def test_the_results_are_what_the_records_say(plain: Path) -> None:
    results, slides = read_results(plain)
    assert json.loads(json.dumps(results.as_json())) == read(plain)
    assert list(results.metrics) == list(results.networks) == list(results.sites) == ["plain", "blurred"]
    assert results.reaches["plain"]["fractional"] == "up to 16 pixels on both axes"
    assert results.reaches["plain"]["crop"] == "windows of 32 pixels in 40"
    assert len(slides) == 8


def test_differences_are_those_of_paired_images(plain: Path) -> None:
    results = read(plain)
    values = {label: figures["crop_consistency"]["value"] for label, figures in results["metrics"].items()}
    difference = results["differences"]["blurred"]["crop_consistency"]
    assert difference["value"] == pytest.approx(values["blurred"] - values["plain"])
    low, high = difference["interval"]
    assert low < difference["value"] < high
    rows = list(csv.DictReader((plain / "results.csv").open()))
    shown = [row for row in rows if row["network"] == "blurred" and row["metric"] == "crop_consistency"]
    assert [float(row["value"]) for row in shown] == [values["blurred"]]


def test_anchored_networks_are_recorded_with_their_method(pictures: Path, tmp_path: Path) -> None:
    settings = {**QUICK, "metrics": ("circular",), "limit": 2}
    results = evaluate([f"{BLURRED},method=polyphase"], pictures, tmp_path / "run", **settings)
    assert results["networks"]["blurred"]["method"] == "polyphase"
    assert "anti-aliased with bin4 (polyphase)" in write_report(tmp_path / "run").read_text()


def test_batch_size_and_workers_change_nothing(plain: Path, pictures: Path, tmp_path: Path) -> None:
    other = evaluate([MODEL, BLURRED], pictures, tmp_path / "run", **{**QUICK, "batch_size": 3, "workers": 2})
    for label, figures in read(plain)["metrics"].items():
        for key, figure in figures.items():
            assert other["metrics"][label][key]["value"] == pytest.approx(figure["value"], abs=1e-6), key


def test_a_cut_off_line_is_counted_again(plain: Path, pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(plain, folder)
    lines = (folder / "counts.jsonl").read_bytes()
    (folder / "counts.jsonl").write_bytes(lines[: len(lines) // 2])
    (folder / "results.json").unlink()
    evaluate([MODEL, BLURRED], pictures, folder, resume=True, **QUICK)
    assert (folder / "results.json").read_bytes() == (plain / "results.json").read_bytes()
    assert (folder / "counts.jsonl").read_bytes() == lines


def test_other_runs_are_left_alone(plain: Path, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has a run already: pass --resume"):
        evaluate([MODEL, BLURRED], pictures, plain, **QUICK)
    with pytest.raises(InputError, match=r"other settings \(seed\): seed was 0 and is 1"):
        evaluate([MODEL, BLURRED], pictures, plain, resume=True, seed=1, **QUICK)
    with pytest.raises(InputError, match="other settings"):
        evaluate([MODEL], pictures, plain, resume=True, **QUICK)
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="has other files"):
        evaluate([MODEL], pictures, tmp_path, **QUICK)


COMMAND = ("-m", "dealias", "evaluate", MODEL, BLURRED, "--metrics", ",".join(METRICS), "--image-size", "40")
COMMAND += ("--crop-size", "32")
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_a_killed_run_goes_on_to_the_same_result(plain: Path, pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = [sys.executable, *COMMAND, "--workers", "1", "--images", str(pictures), "--output", str(folder)]
    process = subprocess.Popen(arguments, env=ONE_THREAD, stderr=subprocess.DEVNULL, start_new_session=True)
    while not (folder / "settings.json").exists() and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)  # a loader that has just been forked would not notice its parent's end
    process.wait()
    assert not (folder / "results.json").exists()
    evaluate([MODEL, BLURRED], pictures, folder, resume=True, **QUICK)
    assert (folder / "results.json").read_bytes() == (plain / "results.json").read_bytes()


def test_torchrun_counts_the_same(plain: Path, pictures: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *COMMAND]
    arguments += ["--workers", "0", "--images", str(pictures), "--output", str(tmp_path / "run")]
    done = subprocess.run(arguments, env=ONE_THREAD, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert read(tmp_path / "run")["metrics"] == read(plain)["metrics"]
    assert done.stdout.rstrip().splitlines()[-1] == str(tmp_path / "run" / "report.html")


@pytest.mark.parametrize("argument", ["images", "output"])
def test_a_folder_that_is_removed_ends_in_one_line(pictures: Path, tmp_path: Path, argument: str) -> None:
    folders = {"images": tmp_path / "images", "output": tmp_path / "run"}
    shutil.copytree(pictures, folders["images"])

    def remove(stage: str, done: float) -> None:
        shutil.rmtree(folders[argument], ignore_errors=True)

    with pytest.raises(InputError, match=rf"^{argument}='.*' was removed while ") as refusal:
        evaluate([MODEL], **folders, on_progress=remove, **{**QUICK, "metrics": ("accuracy", "equivariance")})
    assert str(refusal.value).isprintable()
    assert not folders[argument].exists()


NAN_NETWORK = """
import torch

class Sometimes(torch.nn.Module):
    def forward(self, x):
        logits = x.mean((2, 3)).repeat(1, 4)[:, :10]
        return torch.where(logits[:, :1] > 0, logits, torch.nan)

def network():
    return Sometimes()
"""


def test_nan_is_counted_and_said(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nan_network_of_a_test.py").write_text(NAN_NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    metrics = ("accuracy", "consistency")
    results = evaluate(["nan_network_of_a_test:network"], pictures, tmp_path / "run", **{**QUICK, "metrics": metrics})
    count = results["images"]["not_a_number"]["network"]
    assert 0 < count < 20
    assert results["metrics"]["network"]["accuracy"]["images"] == 20
    assert f"returned NaN for {count} images" in write_report(tmp_path / "run").read_text()


def test_odd_images_are_read_and_broken_ones_counted(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for label in range(10):
        (root / f"<b>{label}").mkdir(parents=True)
        Image.new("RGB", (50, 50), (20 * label, 90, 200)).save(root / f"<b>{label}" / "plain.jpg")
    odd = root / "<b>0"
    Image.new("L", (50, 60), 99).save(odd / "gray.png")
    Image.new("CMYK", (50, 60), (10, 200, 30, 4)).save(odd / "cmyk.jpg")
    Image.fromarray(np.full((60, 50), 40000, dtype=np.uint16)).save(odd / "deep.png")
    frames = [Image.new("P", (50, 60), shade) for shade in (1, 2)]
    frames[0].save(odd / "moving.gif", save_all=True, append_images=frames[1:])
    Image.new("RGB", (9, 5), "red").save(odd / "tiny.png")
    (odd / "<script>alert(1)</script>.jpg".replace("/", "_")).write_bytes(b"no image")
    results = evaluate([MODEL], root, tmp_path / "run", **{**QUICK, "metrics": ("accuracy", "consistency")})
    assert results["metrics"]["plain"]["accuracy"]["images"] == 15
    assert results["images"]["smaller_than_the_window"] == 1
    assert [reason for _, reason in results["images"]["skipped"]] == ["not an image format that Pillow knows"]
    page = write_report(tmp_path / "run").read_text()
    assert "<script>alert" not in page
    assert "<b>0" not in page
    for file in root.glob("*/*"):
        file.write_bytes(b"broken")
    with pytest.raises(InputError, match="has no readable image: all 16 files were skipped"):
        evaluate([MODEL], root, tmp_path / "broken", **{**QUICK, "metrics": ("accuracy",)})


def test_bad_arguments(pictures: Path, tmp_path: Path) -> None:
    for arguments, message in [
        ({"metrics": ("accuracy", "speed")}, "metrics='accuracy,speed'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"workers": -1}, "workers=-1"),
        ({"device": "warp"}, "device='warp'"),
        ({"difficulty": 4}, "difficulty=4"),
        ({"limit": 0}, "limit=0"),
        ({"crop_size": 64}, "crop_size=64"),
    ]:
        with pytest.raises(InputError, match=message):
            evaluate([MODEL], pictures, tmp_path / "run", **{**QUICK, **arguments})
    for text, message in [
        ("dealias:vgg_small,antialias", "KEY=VALUE"),
        ("dealias:vgg_small,colour=red", "colour=red"),
        ("dealias:vgg_small,in_chans=x", "must be a number"),
    ]:
        with pytest.raises(InputError, match=message):
            evaluate([text], pictures, tmp_path / "run", **QUICK)
    with pytest.raises(InputError, match="names two networks"):
        evaluate([MODEL, MODEL], pictures, tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()
