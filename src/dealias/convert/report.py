"""What a conversion changed, where, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dealias.convert.downsampling import GROWING, NONLINEARITY, Site
from dealias.convert.plan import SitePlan
from dealias.convert.recording import ExampleInput, call_arguments, record, undisturbed
from dealias.convert.trace import DOUBLE, HALVE, Node, Trace
from dealias.filters import IDEAL, Taps

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class ConversionReport:
    """What `antialias` did to a network, and what that costs for the example input.

    `rich.print(report)` shows it as a table, `report.to_json()` writes it down.

    Args:
        sites: every site, in the order of `dealias.sites`.
        extra_flops: by site, what a forward pass costs more there: the convolution at a smaller stride, and the blur.
        flops: of the baseline's forward pass. Two for each multiply-add of convolutions, matrix products, attention
            and blurs, as `torch.utils.flop_counter` counts; maxima, norms and activations are not counted.
        activation_bytes, converted_activation_bytes: the memory of the maps that a backward pass needs, beside
            parameters and buffers, before and after.
        filter, stem, recipe, padding_mode: the arguments of `antialias`; `padding_mode` as it was chosen.
    """

    sites: tuple[Site, ...]
    extra_flops: tuple[int, ...]
    flops: int
    activation_bytes: int
    converted_activation_bytes: int
    filter: Any
    stem: bool
    recipe: str
    padding_mode: str

    @property
    def converted_flops(self) -> int:
        """FLOPs of the converted network's forward pass."""
        return self.flops + sum(self.extra_flops)

    def to_dict(self) -> dict[str, Any]:
        """The report in plain containers; each site has its `extra_flops`."""
        rest = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("sites", "extra_flops")}
        rest["converted_flops"] = self.converted_flops
        pairs = zip(self.sites, self.extra_flops, strict=True)
        return {**rest, "sites": [asdict(site) | {"extra_flops": extra} for site, extra in pairs]}

    def to_json(self) -> str:
        """The report as indented JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def __rich__(self) -> Table:
        table = sites_table(self.sites, [f"{extra / 1e6:+,.1f} M" if extra else "" for extra in self.extra_flops])
        before, after = self.flops, self.converted_flops
        memory = self.activation_bytes, self.converted_activation_bytes
        table.caption = (
            f"FLOPs: {before / 1e9:.2f} G before, {after / 1e9:.2f} G after{_percent(before, after)}\n"
            f"activation memory for training: {memory[0] / 2**20:.1f} MiB before, {memory[1] / 2**20:.1f} MiB after"
            f"{_percent(*memory)}"
        )
        table.caption_justify = "left"
        return table


def _percent(before: int, after: int) -> str:
    return f" ({100 * (after - before) / before:+.1f}%)" if before else ""


_STYLES = {"placed": "green", "left alone": "dim", "not placed": "yellow"}


def sites_table(sites: Sequence[Site], extra: Sequence[str] | None = None) -> Table:
    """A Rich table of `sites`, with a column of additional costs if given."""
    from rich.table import Table
    from rich.text import Text

    subsampling = [site for site in sites if site.kind not in (*GROWING, NONLINEARITY)]
    placed, total = sum(site.placed for site in subsampling), len(subsampling)
    table = Table(title=f"{placed} of {total} downsampling sites anti-aliased", title_justify="left")
    table.add_column("site", overflow="fold")
    table.add_column("size")
    table.add_column("what and why", ratio=1)
    if extra:
        table.add_column("more FLOPs", justify="right")
    for number, site in enumerate(sites):
        before, after = ("x".join(map(str, size)) for size in (site.input_size, site.output_size))
        words = site.action or f"{site.status}: {site.reason}"
        cells = (f"{site.kind}\n{site.path}".strip(), f"{before}\n-> {after}" if before else "", words)
        table.add_row(*(Text(cell) for cell in cells), *(extra[number : number + 1] if extra else []))
        table.rows[-1].style = _STYLES[site.status]
    return table


@dataclass(frozen=True)
class Conversion:
    """A converted model, all plans for it, and the blurring layers of each plan that was placed.

    `trace` is of the baseline. `others` are the sites of `method="polyphase"`, in the blurred model, or the
    non-linearities of `method="alias-free"`.
    """

    model: nn.Module
    trace: Trace
    plans: Sequence[SitePlan]
    placed: Sequence[tuple[SitePlan, Sequence[nn.Module]]]
    padding_mode: str
    others: tuple[Site, ...] = ()


def build_report(
    baseline: nn.Module, done: Conversion, example_input: ExampleInput, **settings: Any
) -> ConversionReport:
    """The report of a conversion; `settings` are arguments of `antialias`."""
    traces, blurs_of = (done.trace, record(done.model, example_input)), dict(done.placed)
    costs = [_extra_flops(traces, plan, blurs_of.get(plan, ())) for plan in done.plans]
    return ConversionReport(
        (*(site for plan in done.plans for site in plan.sites), *done.others),
        (*(extra for cost in costs for extra in cost), *(_rate_flops(traces[1], site) for site in done.others)),
        count_flops(baseline, example_input),
        activation_bytes(baseline, example_input),
        activation_bytes(done.model, example_input),
        padding_mode=done.padding_mode,
        **settings,
    )


def _extra_flops(traces: tuple[Trace, Trace], plan: SitePlan, blurs: Sequence[Any]) -> list[int]:
    """By site: the convolution's FLOPs after less those before, and the blur's; a shared blur counts at the first."""
    extra = [0] * len(plan.sites)
    if not plan.is_placed:
        return extra
    before, after = traces
    pairs = dict(zip(before.convolutions, after.convolutions, strict=False))
    for number, spot in enumerate(plan.spots):
        if spot.node in pairs:
            extra[number] = _convolution_flops(pairs[spot.node]) - _convolution_flops(spot.node)
    for blur in blurs:
        maps = [call.output.shape for call in after.calls_of(blur) if call.output is not None]
        stride, rate = plan.sites[0].stride, blur.blurring.rate if hasattr(blur, "blurring") else 1
        taps = blur.taps if hasattr(blur, "taps") else blur.blurring.taps(stride)
        for number, shape in enumerate(maps[: len(extra)]):
            if IDEAL in taps:
                before_it = [step * n for step, n in zip(stride, shape[-len(taps) :], strict=True)]
                extra[number] += _resampling_flops(shape, before_it, rate, taps)
            else:
                extra[number] += 2 * prod(map(len, taps)) * prod(shape)
    return extra


def _resampling_flops(shape: Sequence[int], before: Sequence[int], rate: int, taps: Sequence[Taps]) -> int:
    """Of the filters along one axis after the other that bring a map of `before` pixels, at a rate, to `shape`."""
    spatial = len(before)
    lead, total, now = prod(shape[:-spatial]), 0, list(before)
    for axis in range(spatial) if rate > 1 else ():
        now[axis] *= rate
        total += 2 * before[axis] * lead * prod(now)
    for axis, line in enumerate(taps):
        length, now[axis] = len(line) or now[axis], shape[axis - spatial]
        total += 2 * length * lead * prod(now) if length > 1 else 0
    return total


def _rate_flops(trace: Trace, site: Site) -> int:
    """Of what brings maps to twice their rate and back at a non-linearity; anchors multiply nothing."""
    total = 0
    for node in trace.nodes:
        if node.op not in (DOUBLE, HALVE) or (node.call.path or "").rpartition("antialias_")[0].strip(".") != site.path:
            continue
        shape, result = list(node.inputs[0].shape), node.outputs[0].shape
        for axis, (old, new) in enumerate(zip(node.inputs[0].shape, result, strict=True)):
            shape[axis] = new
            total += 2 * old * prod(shape) if old != new else 0
    return total


def _convolution_flops(node: Node) -> int:
    pixels = node.inputs[0] if node.settings.get("transposed") else node.outputs[0]
    weight: tuple[int, ...] = node.settings["weight"]
    return 2 * prod(pixels.shape) * prod(weight[1:])


def count_flops(model: nn.Module, example_input: ExampleInput) -> int:
    """FLOPs of one forward pass by `torch.utils.flop_counter`: convolutions, matrix products and attention."""
    from torch.utils.flop_counter import FlopCounterMode  # imports half of torch's compiler

    args, kwargs = call_arguments(example_input)
    # with gradients: without them the counter fails where a module takes in a parameter
    with undisturbed(model), torch.enable_grad(), FlopCounterMode(display=False) as counter:
        model(*args, **kwargs)
    return int(counter.get_total_flops())


def activation_bytes(model: nn.Module, example_input: ExampleInput) -> int:
    """Bytes of the tensors that autograd keeps between forward and backward pass, beside parameters and buffers."""
    args, kwargs = call_arguments(example_input)
    own = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in own:
            kept[_storage(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with undisturbed(model), torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(*args, **kwargs)
    del output  # until here, so that no storage is another one's successor
    return sum(kept.values())


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
