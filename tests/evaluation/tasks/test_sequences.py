"""Flip rates and T5D of an evaluation, against torchmetrics and from released videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.evaluation_runs import MODEL, QUICK, WINDOWS, write_patches_network
from PIL import Image
from torch import Tensor

from dealias.data import open_source
from dealias.errors import InputError
from dealias.evaluation import ModelSpec, evaluate
from dealias.evaluation.tasks.sequences import SequenceTask
from dealias.metrics import T5D, FlipRate
from dealias.models import IMAGENET_MEAN, IMAGENET_STD, preprocessing_for
from dealias.perturb import NOISE_PERTURBATIONS, PERTURBATIONS, read_video


@pytest.fixture
def patches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(tmp_path)
    return write_patches_network(tmp_path)


def test_sequences_are_counted_as_torchmetrics_does(pictures: Path, tmp_path: Path, patches: str) -> None:
    settings = {**QUICK, "metrics": ("imagenet-p",), "limit": 4}
    results = evaluate([patches], pictures, tmp_path / "run", **settings)
    network = ModelSpec.parse(patches).build()
    source, preprocessing = open_source(pictures, limit=4), preprocessing_for(network, **WINDOWS)

    def logits_of(views: np.ndarray) -> Tensor:
        with torch.no_grad():
            return network(preprocessing.normalise(torch.tensor(views)))

    found = results["metrics"]["network"]
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
