"""The torchvision shim, with stand-ins for a healthy, a crippled, a broken and a missing torchvision."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dealias.models._torchvision import import_beside_torchvision, import_torchvision

CHECK = """
import sys
import torch
from dealias.errors import MissingExtraError
from dealias.models._torchvision import import_beside_torchvision, import_torchvision
"""


def run(tmp_path: Path, package: str | None, code: str) -> None:
    """Run `code` in a new process that sees `package` as torchvision."""
    if package is not None:
        (tmp_path / "torchvision").mkdir()
        (tmp_path / "torchvision" / "__init__.py").write_text(package)
        (tmp_path / "torchvision" / "early.py").write_text("")
    path = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    done = subprocess.run([sys.executable, "-c", path + CHECK + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_installed_one_works_and_is_imported_once() -> None:
    torchvision = import_torchvision()
    assert import_torchvision() is torchvision
    assert torchvision.models.resnet18(weights=None).fc.out_features == 1000
    assert import_beside_torchvision("timm", "zoo").is_model("resnet18")


def test_a_healthy_one_is_left_alone(tmp_path: Path) -> None:
    package = """
import torch
library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
    run(tmp_path, package, "import_torchvision(); assert not hasattr(torch.ops.torchvision, 'qnms')")


def test_a_crippled_one_is_cured_and_half_imported_modules_dropped(tmp_path: Path) -> None:
    package = """
import torch
from torchvision import early
early.imports = getattr(early, "imports", 0) + 1
torch.library.register_fake("torchvision::nms")(lambda dets, scores, iou_threshold: dets)
"""
    code = """
module = import_torchvision()
assert module.early.imports == 1
assert hasattr(torch.ops.torchvision, "qnms")
assert import_torchvision() is module
"""
    run(tmp_path, package, code)


def test_other_errors_and_absence(tmp_path: Path) -> None:
    code = """
try:
    import_torchvision()
except RuntimeError as error:
    assert "disk on fire" in str(error)
sys.modules["torchvision"] = None  # as if it were not installed
try:
    import_torchvision()
except MissingExtraError as error:
    assert "dealias[zoo]" in str(error)
else:
    raise AssertionError("absence went unnoticed")
assert import_beside_torchvision("statistics", "metrics").fmean([1, 3]) == 2
try:
    import_beside_torchvision("torchmetrics_of_tomorrow", "metrics")
except MissingExtraError as error:
    assert "dealias[metrics]" in str(error)
else:
    raise AssertionError("absence went unnoticed")
"""
    run(tmp_path, "raise RuntimeError('disk on fire')", code)
