import gzip
import json
import struct
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import scipy.stats
import torch

from dealias.errors import InputError

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The experiment's modules, which a script finds beside itself."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    names = ("images", "records", "cells", "pages", "fashion")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return {name: __import__(name) for name in names}


def write_idx(path: Path, values: np.ndarray, *, packed: bool) -> None:
    content = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
    if packed:
        Path(f"{path}.gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


def write_data(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (40, 28, 28), dtype=np.uint8), draw.integers(0, 10, 40, dtype=np.uint8)
    for split, packed in (("train", True), ("t10k", False)):
        write_idx(folder / f"{split}-images-idx3-ubyte", images, packed=packed)
        write_idx(folder / f"{split}-labels-idx1-ubyte", labels, packed=packed)
    return images, labels


def test_idx_files(modules: dict[str, ModuleType], tmp_path: Path):
    images, labels = write_data(tmp_path)
    loaded = modules["images"].load("fashion", tmp_path, tmp_path)
    for part in (loaded.train, loaded.test):
        assert np.array_equal(part, images)
    assert np.array_equal(loaded.train_labels, labels)
    seen = modules["images"].as_input(loaded.test)
    assert seen.shape == (40, 1, 32, 32)
    assert np.array_equal((seen[:, 0, 2:-2, 2:-2] * 255).round(), images)
    assert seen[..., :2].sum() == 0
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x28half")
    with pytest.raises(InputError, match="is not a complete IDX file"):
        modules["images"].load("fashion", tmp_path, tmp_path)


def test_a_cell_is_run_once_and_the_page_shows_what_is_missing(modules: dict[str, ModuleType], tmp_path: Path):
    cells = modules["cells"]
    write_data(tmp_path)
    settings = cells.Settings(
        batch_size=8, consistency_images=8, diagonal_images=4, sequence_images=2, corruption_images=2
    )
    said: list[str] = []
    laboratory = cells.Laboratory(
        modules["images"].load("fashion", tmp_path, tmp_path),
        settings,
        tmp_path / "results.jsonl",
        tmp_path / "work",
        "cpu",
        said.append,
    )
    cell = cells.Cell("fashion", "vgg_small", "circular", True, "bin4", "finetune", 1, 0)
    laboratory.run(cell)
    assert [line.partition(":")[0] for line in said] == [cell.baseline.name, cell.name]  # the baseline comes first
    laboratory.run(cell)
    assert len(said) == 2
    for method in ("convert", "repair"):
        other = replace(cell, method=method)
        laboratory.run(other)
        record = laboratory.records.read()[other.name]
        assert ("repair_agreement" in record["measured"]) == (method == "repair")
    record = laboratory.records.read()[cell.name]
    assert (record["cell"], record["settings"]) == (asdict(cell), asdict(settings))
    measured = record["measured"]
    for name in modules["pages"].MEASURES:
        assert 0 <= measured[name] <= 1
    assert measured["corruption_error"] == pytest.approx(np.mean(list(measured["corruption_errors"].values())))
    assert measured["flip_rate"] == pytest.approx(np.mean(list(measured["flip_rates"].values())))

    # seeds whose figures are known
    results = tmp_path / "page" / "results.jsonl"
    shares = [0.5, 0.54, 0.62]
    for filter, rise in (("none", 0.0), ("bin4", 0.35)):
        for seed, share in enumerate(shares):
            changed = record | {"cell": record["cell"] | {"method": "scratch", "filter": filter, "seed": seed}}
            changed["cell"]["augment"] = False
            gain = (0.01, 0.02, 0.03)[seed] if filter == "bin4" else 0.0
            changed["measured"] = measured | {"accuracy": share + gain, "circular_consistency": share + rise}
            modules["records"].Records(results).add(f"{filter}{seed}", changed)
    page = modules["pages"].write_page(results, tmp_path / "docs").read_text()
    low, high = scipy.stats.t.interval(
        0.95, 2, loc=100 * np.mean(shares), scale=100 * np.std(shares, ddof=1) / np.sqrt(3)
    )
    line = next(line for line in page.splitlines() if line.startswith("| none |"))
    assert line.startswith(f"| none | 3 of 5 | 55.3 [{low:.1f}, {high:.1f}] |")
    assert "| rect2 | 0 of 5 | not run |" in page
    assert "Every filter beats none in circular consistency: 1 of the 1 run in the mean; 1 of 1 with intervals" in page
    assert "Every filter beats none in accuracy: 1 of the 1 run in the mean; 0 of 1 with intervals" in page
    low, high = scipy.stats.t.interval(0.95, 2, loc=2, scale=1 / np.sqrt(3))
    assert f"in pairs of the same seed: bin4 +2.00 [{low:+.2f}, {high:+.2f}]." in page
    assert (tmp_path / "docs" / "images" / "experiments.png").stat().st_size > 1000
    with pytest.raises(InputError, match="has no records"):
        modules["pages"].write_page(tmp_path / "none.jsonl", tmp_path)


def test_processes_that_finish_cells_at_the_same_time_lose_none(modules: dict[str, ModuleType], tmp_path: Path):
    path = tmp_path / "new" / "results.jsonl"
    code = (
        f"import sys; sys.path.insert(0, {str(EXPERIMENTS)!r}); from pathlib import Path; from records import Records\n"
        f"for number in range(int(sys.argv[1]), 40, 2): Records(Path({str(path)!r})).add(f'{{number:02}}', {{}})"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(first)]) for first in (0, 1)]
    assert [process.wait() for process in running] == [0, 0]
    names = [f"{number:02}" for number in range(40)]
    assert [json.loads(line)["name"] for line in path.read_text().splitlines()] == names
    records = modules["records"].Records(path)
    records.add("07", {"again": True})
    assert list(records.read()) == names
    assert records.read()["07"] == {"again": True}
    path.write_text("{}\n")
    with pytest.raises(InputError, match=r"results='.*results\.jsonl' is not a file of records"):
        records.read()


@pytest.mark.parametrize("precision", ["bf16", "float32"])
@pytest.mark.parametrize("shift", [None, "circular", "zeros"])
def test_the_learner_shifts_and_computes_as_asked(modules: dict[str, ModuleType], shift: str | None, precision: str):
    seen: list[torch.Tensor] = []

    class Network(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images)
            logits = torch.mm(images[:, 0, 0], torch.ones(32, 10))
            assert logits.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
            return logits

    images = torch.rand(6, 1, 32, 32)
    torch.manual_seed(0)
    assert modules["cells"].Learner(Network(), shift, precision)(images).dtype == torch.float32
    moved = seen[0]
    assert torch.equal(moved, images) == (shift is None)
    if shift == "circular":
        assert torch.equal(moved.flatten(1).sort().values, images.flatten(1).sort().values)
    elif shift == "zeros":
        kept = images[:, 0, 3:-3, 3:-3].flatten(1)
        assert all(torch.isin(inner, whole).all() for inner, whole in zip(kept, moved.flatten(1), strict=True))


def test_the_grid_has_each_cell_once(modules: dict[str, ModuleType]):
    filters = modules["cells"].FILTERS
    cells = modules["fashion"].grid("fashion", "vgg_small", 3, range(5), filters)
    assert len({cell.name for cell in cells}) == len(cells) == (6 * 4 + 3) * 5
    assert [cell.filter for cell in cells[:3]] == ["none", "bin4", "rect2"]
    quick = modules["fashion"].grid("digits", "vgg_small", 3, range(2), modules["cells"].EXTENT["digits"][0])
    assert len({cell.name for cell in quick}) == len(quick) == (3 + 3) * 2


def test_words_that_are_not_in_the_name_of_any_cell(modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["fashion.py", "--only", "circular", "nothing"])
    with pytest.raises(InputError, match="only='circular nothing' is not in the name of any cell"):
        modules["fashion"].main()
