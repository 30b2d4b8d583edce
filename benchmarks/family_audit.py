"""What is checked of each network of the second family (benchmarks/family.py)."""

from __future__ import annotations

import copy
import io
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr
from typing import TYPE_CHECKING, Any

import recorded
import torch
from conversion_audit import KINDS, sampling
from outputs import call, difference, leaves
from torch import nn

from dealias.convert import Site, antialias, antialias_with_report, sites
from dealias.convert.report import ConversionReport

if TYPE_CHECKING:
    from family import Case  # which takes in torchvision

CLOSE = 1e-4  # relative: what the order of sums may do
Finding = tuple[str, Callable[[], str | None]]


def check_case(case: Case) -> dict[str, Any]:
    """Convert one network, and see that all that is promised holds: "findings" says what does not."""
    started = time.perf_counter()
    model, example = case.build(), case.example_input()
    torch.manual_seed(2)
    baseline = call(model, example)
    with warnings.catch_warnings(action="ignore"):
        converted, report = antialias_with_report(model, example)
    findings, notes = [], []
    if "YOLO.predict" in case.name:
        checks: list[Finding] = [("YOLO.predict", lambda: predicts(converted, example))]
    else:
        checks = [
            ("class and state_dict", lambda: keeps_state(model, converted)),
            ("sites() and antialias()", lambda: agrees(model, example, report)),
            ("structure of the output", lambda: keeps_structure(baseline, call(converted, example))),
            ("blurs", lambda: blurs(baseline, call(converted, example), report)),
            ("filter='none'", lambda: same_without_filter(model, example, baseline, report)),
            ("strict checkpoint", lambda: loads(case, converted, example)),
        ]
    if hasattr(model, "fuse") and "fused" not in case.name:
        checks.append(("fuse() after", lambda: fuses(converted, example)))
    for name, check in checks:
        try:
            said = check()
        except Exception as error:  # any error of another library's network is a finding
            said = f"{type(error).__name__}: {error}"
        if said is not None:
            (notes if said.startswith("note: ") else findings).append(f"{name}: {said.removeprefix('note: ')[:400]}")
    audited, missed, aliased = audit(model, converted, example, report)
    early = early_blurs(model, converted, example)
    refused = Counter((site.kind, site.path, site.reason) for site in report.sites if site.status == "not placed")
    return {
        "sites": sum(site.kind in KINDS for site in report.sites),
        "placed": sum(site.placed for site in report.sites),
        "left": sum(site.status == "left alone" and site.kind in KINDS for site in report.sites),
        "refused": [[kind, path, reason, times] for (kind, path, reason), times in refused.items()],
        "audited": audited,
        "missed": missed,
        "aliased": aliased,
        "early": early,
        "findings": findings,
        "notes": notes,
        "seconds": round(time.perf_counter() - started, 1),
    }


def predicts(converted: Any, example: Any) -> str | None:
    """`YOLO.predict` fuses its network by itself."""
    from family import Predictor

    expected = call(converted, example)
    error = difference(call(Predictor(copy.deepcopy(converted)), example)[0], expected[0])
    return None if error < CLOSE else f"the output differs by {error:.2g}"


def fuses(converted: Any, example: Any) -> str | None:
    """The network's own `fuse()` keeps the function."""
    fused = copy.deepcopy(converted)
    fused.fuse(verbose=False)
    error = difference(call(fused, example)[0], call(converted, example)[0])
    return None if error < CLOSE else f"the output differs by {error:.2g}"


def keeps_state(model: nn.Module, converted: nn.Module) -> str | None:
    """Class, and keys, shapes and order of the state_dict."""
    if type(converted) is not type(model):
        return f"the class is {type(converted).__name__}"
    states = [[(key, value.shape) for key, value in one.state_dict().items()] for one in (model, converted)]
    return None if states[0] == states[1] else "the keys of the state_dict changed"


def agrees(model: nn.Module, example: Any, report: ConversionReport) -> str | None:
    """`sites` says what `antialias` does."""
    said, done = (
        Counter((site.kind, site.path, site.stride, site.status) for site in each)
        for each in (sites(model, example), report.sites)
    )
    return None if said == done else f"they differ: {list((said - done) | (done - said))[:3]}"


def keeps_structure(baseline: Any, output: Any) -> str | None:
    """The same containers, keys and numbers of axes; how many boxes there are is up to the data."""
    (before, form), (after, found) = leaves(baseline), leaves(output)
    if type(output) is not type(baseline) or form != found:
        return f"{found} in place of {form}"
    axes = [[(one.ndim, one.dtype) for one in each] for each in (before, after)]
    return None if axes[0] == axes[1] else "other axes or types"


def blurs(baseline: Any, output: Any, report: ConversionReport) -> str | None:
    """A conversion that placed something changes what the network returns."""
    placed = any(site.placed for site in report.sites)
    if not placed:
        return "nothing was placed"
    unchanged = any(one.numel() for one in leaves(baseline)[0]) and difference(output, baseline) == 0
    return "the outputs are those of the baseline" if unchanged else None


def same_without_filter(model: nn.Module, example: Any, baseline: Any, report: ConversionReport) -> str | None:
    """With a filter of one tap the function is the baseline's.

    A blur in place of an average is then a plain subsampling, by definition: where there are such, the function is that
    of the baseline with single samples in place of its averages.
    """
    with warnings.catch_warnings(action="ignore"):
        unfiltered = antialias(model, example, filter="none")
    torch.manual_seed(2)
    output = call(unfiltered, example)
    error = difference(output, baseline)
    averages = [site for site in report.sites if site.placed and "in place of" in (site.action or "")]
    if error >= CLOSE and averages:
        if not all(site.path for site in averages):
            return "note: functions that average were replaced, so that it is another function"
        model = with_subsampling(model, averages)
        torch.manual_seed(2)
        error = difference(output, call(model, example))
    if error < CLOSE:
        return None
    if not hasattr(model, "backbone"):
        return f"the output differs from the baseline's by {error:.2g}"
    maps = [capture(one, "backbone", example) for one in (unfiltered, model)]
    error = difference(*maps)
    return "note: a choice of boxes flipped" if error < CLOSE else f"the backbone's maps differ by {error:.2g}"


class Subsampling(nn.Module):
    """Every `stride`-th sample from the first; without the last ones that fill no window, where `whole` is set."""

    def __init__(self, stride: tuple[int, ...], whole: bool) -> None:
        super().__init__()
        self.stride, self.whole = stride, whole

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Subsample the last axes."""
        sizes = x.shape[-len(self.stride) :]
        ends = [size - size % step if self.whole else size for size, step in zip(sizes, self.stride, strict=True)]
        return x[(..., *(slice(0, end, step) for end, step in zip(ends, self.stride, strict=True)))]


def with_subsampling(model: nn.Module, averages: Iterable[Site]) -> nn.Module:
    """A copy of `model` in which the layers of the sites `averages` take single samples in place of averages."""
    model = copy.deepcopy(model)
    for site in averages:
        whole = not getattr(model.get_submodule(site.path), "ceil_mode", False)
        model.set_submodule(site.path, Subsampling(site.stride, whole))
    return model


def capture(model: nn.Module, path: str, example: Any) -> Any:
    """What the module at `path` returns when the model runs."""
    found: list[Any] = []
    handle = model.get_submodule(path).register_forward_hook(lambda module, args, output: found.append(output))
    call(model, example)
    handle.remove()
    return found[0]


def loads(case: Case, converted: nn.Module, example: Any) -> str | None:
    """A baseline's checkpoint loads into the converted network, and the other way round."""
    loaded, model = copy.deepcopy(converted), case.build()
    for parameter in loaded.parameters():
        nn.init.zeros_(parameter)
    loaded.load_state_dict(model.state_dict(), strict=True)
    model.load_state_dict(converted.state_dict(), strict=True)
    error = difference(call(loaded, example), call(converted, example))
    return None if error < CLOSE else f"the output differs by {error:.2g} after loading"


def audit(
    model: nn.Module, converted: nn.Module, example: Any, report: ConversionReport
) -> tuple[str, list[str], list[str]]:
    """How it was audited, the sites that the report lacks, and those that stayed although it says placed."""
    try:
        with redirect_stderr(io.StringIO()):  # torch.export prints the whole graph where it fails
            before, after = (sampling(copy.deepcopy(one), example)[0] for one in (model, converted))
        how, kinds = "export", set(KINDS) - {"pixel_unshuffle"}
    except Exception:  # what data decide cannot be exported, and every library fails in its own way
        before, after = (
            recorded.sampling(recorded.record(one, lambda network: call(network, example)))[0]
            for one in (model, converted)
        )
        how, kinds = "run", {"conv", "max_pool", "avg_pool"}
    known = Counter((site.kind, site.stride, site.output_size) for site in report.sites)
    stay = Counter((site.kind, site.stride, site.output_size) for site in report.sites if not site.placed)
    missed = [str(one) for one in (before - known).elements() if one[0] in kinds]
    return how, missed, [str(one) for one in (after - stay).elements() if one[0] in kinds]


def early_blurs(model: nn.Module, converted: nn.Module, example: Any) -> list[str]:
    """The blurs in front of a non-linearity that could stand behind it."""
    before, after = (recorded.record(one, lambda network: call(network, example)) for one in (model, converted))
    return recorded.early_blurs(after, recorded.strided_weights(before))
