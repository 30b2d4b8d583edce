from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    import gpu

    return gpu


def operation(gpu: ModuleType, shape: str, which: str, **changed: Any) -> dict[str, Any]:
    row = {"operation": "max_blur(2)", "shape": shape, "pass": which, "of copy": 0.9, "MaxPool2d / fused": 1.5}
    return row | {"compiled / fused": 2.0} | changed


def test_targets_judge_the_worst_row_that_they_speak_of(gpu: ModuleType) -> None:
    operations = [
        operation(gpu, "64x64x112x112", "forward"),
        operation(gpu, "64x256x56x56", "forward + backward", **{"of copy": 0.79}),
        operation(
            gpu, "64x256x28x28", "forward", **{"of copy": 0.5, "compiled / fused": 1.0, "MaxPool2d / fused": 0.9}
        ),
        operation(gpu, "64x256x28x28", "forward + backward", **{"of copy": 0.4, "MaxPool2d / fused": ""}),
    ]
    networks = [
        {"network": "resnet50", gpu.OVERHEAD: 3.1, gpu.PEAK: 9.0},
        {"network": "resnet50", gpu.OVERHEAD: 1.0, gpu.PEAK: 10.0},
        {"network": "vgg16_bn", gpu.OVERHEAD: 30.0, gpu.PEAK: 90.0},
    ]
    tables = {"operations": operations, "networks": networks, "first-use": [{"seconds": 5.2}, {"seconds": 0.1}]}
    assert [(row["worst"], row["holds"]) for row in gpu.verdicts(tables)] == [
        (0.79, "no"),
        (1.0, "yes"),
        (1.5, "yes"),
        (3.1, "no"),
        (10.0, "yes"),
        (5.2, "no"),
    ]


def test_what_was_not_measured_is_not_judged(gpu: ModuleType) -> None:
    assert gpu.verdicts({}) == []
    assert len(gpu.verdicts({"first-use": [{"seconds": 4.0}]})) == 1


def test_a_page_keeps_what_is_around_the_marks(gpu: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- benchmarks/gpu.py: begin -->\nold\n<!-- benchmarks/gpu.py: end -->\nbelow\n")
    gpu.replace_section(page, "benchmarks/gpu.py", gpu.as_markdown([{"a": 1}, {"b": 2}]))
    inside = "| a | b |\n| --- | --- |\n| 1 |  |\n|  | 2 |"
    begin, end = "<!-- benchmarks/gpu.py: begin -->", "<!-- benchmarks/gpu.py: end -->"
    assert page.read_text() == f"above\n{begin}\n{inside}\n{end}\nbelow\n"
    with pytest.raises(SystemExit, match=r"lacks the marks .*other\.py"):
        gpu.replace_section(page, "benchmarks/other.py", "")


def test_without_a_gpu_it_says_so(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="no CUDA device"):
        gpu.main()
