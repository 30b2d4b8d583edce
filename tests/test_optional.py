"""Optional packages, and torchvision with stand-ins for a healthy, a crippled, a broken and a missing one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

from dealias.errors import MissingExtraError
from dealias.optional import EXTRAS, import_torchvision, require

CHECK = """
import sys
import torch
from dealias.errors import MissingExtraError
from dealias.optional import import_torchvision, require
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
    assert require("timm").is_model("resnet18")


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

"""
    run(tmp_path, "raise RuntimeError('disk on fire')", code)


@pytest.mark.parametrize("package", EXTRAS)
def test_require_names_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, f"{package}.part", raising=False)
    for module in (package, f"{package}.part"):
        with pytest.raises(MissingExtraError, match=rf"^{package} is not installed.*'dealias\[{EXTRAS[package]}\]'"):
            require(module)


def test_every_optional_package_is_in_its_extra() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    distributions = {"PIL": "pillow", "pywt": "PyWavelets", "skimage": "scikit-image", "yaml": "pyyaml"}
    for package, extra in EXTRAS.items():
        distribution = distributions.get(package, package.replace("_", "-"))
        assert any(line.startswith(distribution) for line in project["optional-dependencies"][extra]), package


def test_require_returns_the_module_asked_for() -> None:
    assert require("PIL.Image").__name__ == "PIL.Image"


def test_require_does_not_hide_what_a_broken_package_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("import missing_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="missing_dependency"):
        require("broken_package")
