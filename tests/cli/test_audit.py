"""`dealias audit` from the command line."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dealias.audit import AUDIT_METRICS
from dealias.evaluation import evaluate
from dealias.models import create_model
from dealias.report.evaluation import write_report

COPY = "anti-aliased, not trained"
NETWORK = "dealias:vgg_small,in_chans=3"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for label in range(10):
        (tmp_path / "pictures" / str(label)).mkdir(parents=True)
        coarse = Image.fromarray(draw.integers(0, 256, (6, 7, 3), dtype=np.uint8))
        coarse.resize((56, 48), Image.Resampling.BICUBIC).save(tmp_path / "pictures" / str(label) / "0.png")
    return tmp_path / "pictures"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    network = create_model("dealias:vgg_small", in_chans=3)
    for module in network.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data *= 20  # else it hardly tells images apart
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_audit_writes_a_report_and_names_skipped_files(
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    images: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    arguments = ("audit", "dealias:vgg_small", "--images", images, "--output", out, "--filter", "1,2,1", "--workers", 0)
    assert run(*arguments) == 0
    shown = capsys.readouterr()
    lines = shown.out.rstrip().splitlines()
    assert lines[-1] == str(out / "report.html")
    assert "files were skipped" in lines[-2]
    assert "Not measured, accuracy" in shown.err  # 2 folders, 10 classes
    results = json.loads((out / "results.json").read_text())
    assert results["images"]["asked_for"] == 5
    assert [name for name, _ in results["images"]["skipped"]] == ["a/truncated.jpg"]
    assert list(results["metrics"]) == ["vgg_small", COPY]
    for figures in results["metrics"].values():
        assert "accuracy" not in figures
        for key in ("circular_consistency", "zero_fill_consistency"):
            low, high = figures[key]["interval"]
            assert 0 <= low <= figures[key]["value"] <= high <= 1
    assert results["networks"][COPY]["antialias"] == "1,2,1"
    page = (out / "report.html").read_text()
    assert "truncated.jpg" in page
    assert "b<i>" not in page
    assert "was not trained after the conversion" in page
    assert "Where the aliasing enters" in page
    assert run(*arguments) == 1
    assert "pass --resume" in capsys.readouterr().err
    assert run(*arguments, "--resume") == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    assert run(*arguments[:4], "--output", tmp_path / "other") == 1
    assert "name a new or empty folder, or one of dealias audit" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.sweep
def test_audit_and_evaluate_give_the_same_numbers(
    run: Callable[..., int], pictures: Path, weights: Path, tmp_path: Path
) -> None:
    models = [f"{NETWORK},weights={weights},label=plain", f"{NETWORK},weights={weights},antialias=tri3,label=copy"]
    with warnings.catch_warnings(action="ignore"):
        where = ("--images", pictures, "--output", tmp_path / "audit", "--weights", weights)
        assert run("audit", NETWORK, *where, "--filter", "tri3", "--limit", 7, "--seed", 5, "--workers", 0) == 0
        evaluated = evaluate(models, pictures, tmp_path / "evaluate", metrics=AUDIT_METRICS, limit=7, seed=5, workers=0)
    write_report(tmp_path / "evaluate")
    audited = json.loads((tmp_path / "audit" / "results.json").read_text())
    evaluated = json.loads(json.dumps(evaluated))
    names = {"plain": "vgg_small", "copy": "anti-aliased, not trained"}
    for label, name in names.items():
        assert audited["metrics"][name] == evaluated["metrics"][label]
        assert audited["profiles"][name] == evaluated["profiles"][label]
        assert audited["sites"][name] == evaluated["sites"][label]
    assert audited["differences"][names["copy"]] == evaluated["differences"]["copy"]
    assert audited["images"] | {"not_a_number": None} == evaluated["images"] | {"not_a_number": None}
    values = [figure["value"] for figure in audited["metrics"]["vgg_small"].values()]
    assert len(set(values)) > 2
    files = [{path.name for path in (tmp_path / name).iterdir()} for name in ("audit", "evaluate")]
    assert files[0] == files[1]


@pytest.mark.sweep
def test_the_copy_has_the_same_random_weights(run: Callable[..., int], pictures: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        where = ("--images", pictures, "--output", tmp_path / "out", "--workers", 0)
        assert run("audit", NETWORK, *where, "--filter", "1") == 0  # one tap changes nothing
    plain, copy = json.loads((tmp_path / "out" / "results.json").read_text())["metrics"].values()
    assert {key: figure["value"] for key, figure in plain.items()} == {
        key: figure["value"] for key, figure in copy.items()
    }


def test_a_detector_is_audited_once_its_task_is_named(
    run: Callable[..., int],
    error_of: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    pictures: Path,
    tmp_path: Path,
) -> None:
    where = ("--images", pictures, "--output", tmp_path / "out", "--workers", 0, "--limit", 1)
    assert "or name its task" in error_of("audit", "helpers.networks_of_tasks:Detector", *where)
    assert "task='boxes' is unknown" in error_of("audit", NETWORK, *where, "--task", "boxes")
    assert run("audit", "helpers.networks_of_tasks:Detector", *where, "--task", "detection") == 0
    shown = capsys.readouterr().out
    assert "boxes found again" in shown
    assert shown.startswith("Detector finds the same boxes in two shifts of one image in")
