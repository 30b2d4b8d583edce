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
import torch
from PIL import Image
from torch import Tensor

from dealias.data import open_source
from dealias.errors import InputError
from dealias.evaluation import evaluate
from dealias.evaluation.specs import ModelSpec
from dealias.evaluation.store import RunStore
from dealias.evaluation.tasks import CorruptionTask, SequenceTask
from dealias.metrics import T5D, CorruptionError, FlipRate, measure_consistency, wilson_interval
from dealias.models import IMAGENET_MEAN, IMAGENET_STD, preprocessing_for
from dealias.perturb import CORRUPTIONS, NOISE_PERTURBATIONS, PERTURBATIONS, read_video

MODEL = "dealias:vgg_small,in_chans=3,label=plain"
BLURRED = "dealias:vgg_small,in_chans=3,antialias=bin4,label=blurred"
WINDOWS = {"image_size": 40, "crop_size": 32}
METRICS = ("accuracy", "consistency", "diagonal", "one-pixel", "grid", "fractional")
QUICK: dict[str, Any] = {"metrics": METRICS, "workers": 0, **WINDOWS}


@pytest.fixture(scope="module")
def plain(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run of two networks."""
    folder = tmp_path_factory.mktemp("run") / "plain"
    evaluate([MODEL, BLURRED], pictures, folder, **QUICK)
    return folder


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def network_and_images(pictures: Path) -> tuple[torch.nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    network = ModelSpec.parse(MODEL).build()
    source, preprocessing = open_source(pictures), preprocessing_for("dealias:vgg_small", **WINDOWS)
    big = [np.asarray(source.read(number).resize((46, 40), Image.Resampling.BILINEAR)) for number in range(20)]
    images = torch.tensor(np.stack(big)[:, :, 3:43]).permute(0, 3, 1, 2).float() / 255
    assert preprocessing.shift_size == 40
    return network, images, torch.tensor(source.labels)


def test_figures_equal_those_of_the_library_on_the_same_images(plain: Path, pictures: Path) -> None:
    network, images, targets = network_and_images(pictures)
    found = read(plain)["metrics"]["plain"]
    with torch.no_grad():
        right = int((network(images[:, :, 4:36, 4:36]).argmax(1) == targets).sum())
    assert found["accuracy"]["value"] == right / 20
    assert found["accuracy"]["interval"] == pytest.approx(wilson_interval(right, 20))
    for mode, key in (("crop", "crop_consistency"), ("diagonal", "diagonal_consistency"), ("grid", "grid_consistency")):
        result = measure_consistency(network, images, targets=targets, mode=mode, seed=0, **WINDOWS)
        assert found[key]["value"] == pytest.approx(result.consistency)
        assert found[key]["interval"] == pytest.approx(result.interval)
        assert found[f"{mode}_unanimity"]["value"] == pytest.approx(result.unanimity)
        if mode == "diagonal":
            assert found["probability_variation"]["value"] == pytest.approx(result.variation, abs=1e-6)
        if mode == "grid":
            assert found["worst_case_accuracy"]["value"] == pytest.approx(result.worst_case_accuracy)
    pixel = measure_consistency(network, images, mode="one_pixel", seed=0, **WINDOWS)
    assert found["one_pixel_flip_probability"]["value"] == pytest.approx(1 - pixel.consistency)
    middle = images[:, :, 4:36, 4:36]
    rolled = measure_consistency(network, middle, mode="fractional", max_shift=16, seed=0)
    assert found["fractional_consistency"]["value"] == pytest.approx(rolled.consistency)


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


PATCHES_NETWORK = """
import torch

class Patches(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)[:, :10]

def network():
    return Patches()
"""


@pytest.fixture
def patches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A network that says which of an image's patches is brightest in a channel: what it sees changes its answers."""
    (tmp_path / "patches_network_of_a_test.py").write_text(PATCHES_NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    return "patches_network_of_a_test:network"


def test_corruptions_and_sequences_are_counted_as_torchmetrics_does(
    pictures: Path, tmp_path: Path, patches: str
) -> None:
    settings = {**QUICK, "metrics": ("imagenet-c", "imagenet-p"), "limit": 4}
    results = evaluate([patches], pictures, tmp_path / "run", **settings)
    network = ModelSpec.parse(patches).build()
    source, preprocessing = open_source(pictures, limit=4), preprocessing_for(network, **WINDOWS)
    errors = CorruptionError()

    def logits_of(views: np.ndarray) -> Tensor:
        with torch.no_grad():
            return network(preprocessing.normalise(torch.tensor(views)))

    for name in CORRUPTIONS:
        task = CorruptionTask(f"imagenet-c/{name}", source, 0, corruption=name)
        for number in range(4):
            logits = logits_of(task.views(source.read(number), source.positions[number], preprocessing))
            for severity in range(1, 6):
                target = torch.tensor([source.labels[number]])
                errors.update(name, severity, logits[severity - 1 : severity], target)
    expected, found = errors.compute(), results["metrics"]["network"]
    assert len({float(expected[name]) for name in CORRUPTIONS}) > 1
    assert found["mean_corruption_error"]["value"] == pytest.approx(float(expected["mean"]), abs=1e-6)
    assert found["mce"]["value"] == pytest.approx(float(expected["mce"]), abs=1e-5)
    rates = []
    for name in PERTURBATIONS:
        noise = name in ("gaussian_noise", "shot_noise")
        task = SequenceTask(f"imagenet-p/{name}", source, 0, perturbation=name)
        flips, moves = FlipRate(noise), T5D(noise)
        for number in range(4):
            logits = logits_of(task.views(source.read(number), source.positions[number], preprocessing))
            flips.update(logits[None])
            moves.update(logits[None])
        row = results["perturbations"]["network"][name]
        assert row["flip_rate"]["value"] == pytest.approx(float(flips.compute()), abs=1e-6)
        assert row["t5d"]["value"] == pytest.approx(float(moves.compute()), abs=1e-5)
        rates.append(float(flips.compute()))
    assert max(rates) > 0.1
    assert found["mean_flip_rate"]["value"] == pytest.approx(np.mean(rates), abs=1e-6)


def link_corruptions(root: Path, pictures: Path) -> None:
    """A released ImageNet-C, one folder deeper than need be, whose images are `pictures` throughout."""
    for name in CORRUPTIONS:
        (root / "all" / name).mkdir(parents=True)
        for severity in range(1, 6):
            (root / "all" / name / str(severity)).symlink_to(pictures, target_is_directory=True)


def test_released_corruptions_are_read_as_they_are(pictures: Path, tmp_path: Path) -> None:
    link_corruptions(tmp_path / "released", pictures)
    settings = {**QUICK, "metrics": ("imagenet-c",), "limit": 5, "imagenet_c": tmp_path / "released"}
    results = evaluate([MODEL], pictures, tmp_path / "run", **settings)
    cells = {cell["value"] for row in results["corruptions"]["plain"].values() for cell in row.values()}
    assert len(cells) == 1  # all folders are one
    assert results["metrics"]["plain"]["mean_corruption_error"]["images"] == 5


def test_broken_images_do_not_stop_a_run_on_released_ones(pictures: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    link_corruptions(tmp_path / "released", pictures)
    shutil.copytree(pictures, images)
    (images / "class 0" / "0.png").write_bytes(b"broken")
    settings = {**QUICK, "metrics": ("imagenet-c",), "imagenet_c": tmp_path / "released"}
    results = evaluate([MODEL], images, tmp_path / "run", **settings)
    assert results["metrics"]["plain"]["mean_corruption_error"]["images"] == 20
    slides = json.loads((tmp_path / "run" / "slides.json").read_text())
    assert [slide["name"] for slide in slides[:2]] == ["class 0/1.png", "class 1/0.png"]
    assert len(slides) == 8


def test_released_sequences_are_read_as_they_are(pictures: Path, tmp_path: Path, patches: str) -> None:
    from helpers.videos import write_video

    draw, root, shown = np.random.default_rng(0), tmp_path / "released", []
    for name in ("n01/a", "n01/b", "n02/c"):
        coarse = [Image.fromarray(draw.integers(0, 256, (5, 6, 3), dtype=np.uint8)) for _ in range(4)]
        frames = [coarse[index].resize((48, 40), Image.Resampling.BICUBIC) for index in (0, 1, 1, 2, 3, 0)]
        write_video(root / "all" / f"{name}.mp4", np.stack(frames))
        shown += list(read_video(root / "all" / f"{name}.mp4"))
    write_video(root / "all" / "n02" / "short.mp4", np.stack(frames[:4]))
    (root / "all" / "n02" / "broken.mp4").write_bytes(b"no video")
    folders = [f"{name}_2" if name in NOISE_PERTURBATIONS else name for name in PERTURBATIONS]
    for folder in folders:
        (root / folder).symlink_to(root / "all", target_is_directory=True)

    settings = {**QUICK, "metrics": ("imagenet-p",), "difficulty": 2}
    results = evaluate([patches], pictures, tmp_path / "run", **settings, imagenet_p=root)

    resized = [Image.fromarray(frame).resize((38, 32), Image.Resampling.BILINEAR) for frame in shown]
    seen = (np.stack(resized)[:, :, 3:35] / 255 - IMAGENET_MEAN) / IMAGENET_STD
    logits = torch.tensor(seen.reshape(3, 6, 2, 16, 2, 16, 3).mean((3, 5)).transpose(0, 1, 4, 2, 3)).flatten(2)[
        ..., :10
    ]
    table = results["perturbations"]["network"]
    assert set(table) == set(PERTURBATIONS)
    for name, row in table.items():
        for key, metric_type in (("flip_rate", FlipRate), ("t5d", T5D)):
            metric = metric_type(noise=name in NOISE_PERTURBATIONS, difficulty=2)
            metric.update(logits)
            assert float(metric.compute()) > 0
            assert row[key]["value"] == pytest.approx(float(metric.compute()), abs=1e-6)
            assert row[key]["images"] == 3
    assert table["shot_noise"] != table["tilt"]
    skipped = dict(results["images"]["skipped"])
    assert set(skipped) == {f"{folder}/n02/{name}.mp4" for folder in folders for name in ("broken", "short")}
    assert skipped["tilt/n02/short.mp4"] == "it has 4 frames and the first video 6: all need the same number"


def test_mean_rates_are_divided_by_those_given(pictures: Path, tmp_path: Path) -> None:
    rates = tmp_path / "rates.csv"
    rates.write_text("perturbation,flip_rate,t5d\n" + "".join(f"{name},0.5,2\n" for name in PERTURBATIONS))
    settings = {**QUICK, "metrics": ("imagenet-p",), "limit": 1}
    found = evaluate([MODEL], pictures, tmp_path / "run", **settings, imagenet_p_rates=rates)["metrics"]["plain"]
    assert found["mfr"]["value"] == pytest.approx(2 * found["mean_flip_rate"]["value"])
    assert found["mt5d"]["value"] == pytest.approx(found["mean_t5d"]["value"] / 2)
    rates.write_text("perturbation,flip_rate,t5d\nsnow,0,1\n")
    with pytest.raises(InputError, match="no positive rates"):
        evaluate([MODEL], pictures, tmp_path / "run", **settings, imagenet_p_rates=rates, resume=True)
    with pytest.raises(InputError, match="no positive rates"):
        evaluate([MODEL], pictures, tmp_path / "new", **settings, imagenet_p_rates=rates)
    assert not (tmp_path / "new").exists()  # it is said before hours of counting


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
    assert f"returned NaN for {count} images" in (tmp_path / "run" / "report.html").read_text()


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
    assert [reason for _, reason in results["images"]["skipped"]] == ["no image format that Pillow knows"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<script>alert" not in page
    assert "<b>0" not in page
    for file in root.glob("*/*"):
        file.write_bytes(b"broken")
    with pytest.raises(InputError, match="has no readable image: all 16 files were skipped"):
        evaluate([MODEL], root, tmp_path / "broken", **{**QUICK, "metrics": ("accuracy",)})


def test_classes_that_do_not_match(pictures: Path, tmp_path: Path) -> None:
    five = "dealias:vgg_small,in_chans=3,num_classes=5"
    with pytest.raises(InputError, match=r"accuracy.*the images have 10 classes and vgg_small has 5"):
        evaluate([five], pictures, tmp_path / "run", **{**QUICK, "metrics": ("accuracy",)})
    with pytest.warns(UserWarning, match="Not measured, accuracy"):
        results = evaluate([five], pictures, tmp_path / "run", **{**QUICK, "metrics": ("accuracy", "consistency")})
    assert set(results["metrics"]["vgg_small"]) == {"crop_consistency", "crop_unanimity"}
    assert "Not measured, accuracy" in (tmp_path / "run" / "report.html").read_text()


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run", {"seed": 0}, resume=False)
    record = {"task": "shifts", "group": 0, "start": 0, "counts": {}}
    store.append(record)
    store._lines = Path("/dev/full")
    with pytest.raises(InputError, match=r"No space left.*continue with --resume"):
        store.append({**record, "start": 32})
    again = RunStore(tmp_path / "run", {"seed": 0}, resume=True)
    assert again.records() == [record]


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
        ("dealias:vgg_small,in_chans=x", "in_chans=.x. is not a number from 1"),
    ]:
        with pytest.raises(InputError, match=message):
            evaluate([text], pictures, tmp_path / "run", **QUICK)
    with pytest.raises(InputError, match="names two networks"):
        evaluate([MODEL, MODEL], pictures, tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()
