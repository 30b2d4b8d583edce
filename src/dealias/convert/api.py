"""`antialias` and `sites`: record, plan, see that the plans work, and edit."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from dealias.convert.anchors import AnchorPlans
from dealias.convert.arguments import (
    METHODS,
    Arguments,
    FilterChoice,
    check_alias_free,
    check_arguments,
    check_choice,
    check_ideal,
    check_recipe,
    filters_of,
)
from dealias.convert.downsampling import GROWING, NONLINEARITY, Site
from dealias.convert.graphs import has_graphs, with_modules
from dealias.convert.groups import ALL, Stem
from dealias.convert.guard import watch_over
from dealias.convert.layers import Blurring
from dealias.convert.nonlinear import Nonlinearities, Nonlinearity
from dealias.convert.plan import SitePlan, make_plans
from dealias.convert.recording import ExampleInput, record
from dealias.convert.report import Conversion, ConversionReport, build_report
from dealias.convert.trace import Trace
from dealias.convert.verify import apply, verified, verified_rates
from dealias.convert.windows import layer_classes
from dealias.errors import InputError, check_flag
from dealias.filters import IDEAL
from dealias.functional import check_padding_mode

if TYPE_CHECKING:
    from typing_extensions import Unpack  # part of typing from Python 3.11

_CIRCULAR_PADS = layer_classes("CircularPad")


def sites(
    model: nn.Module,
    example_input: ExampleInput,
    *,
    method: str = "blur",
    stem: bool = False,
    recipe: str = "same-size",
    placement: str = "after",
) -> list[Site]:
    """Every place where `model` subsamples, and what `antialias` with the same arguments would do there.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU())
    >>> [(site.kind, site.path, site.output_size, site.placed) for site in sites(model, torch.rand(1, 3, 32, 32))]
    [('max_pool', '1', (15, 15), True), ('conv', '2', (7, 7), True)]

    The model and a converted copy run, in evaluation mode and without gradients; the model is as before afterwards.

    Args:
        model: any module that runs.
        example_input: what the model is called with: a tensor, a tuple of positional arguments or a dict of keyword
            arguments. Sites are those that this input reaches.
        method, stem, recipe, placement: see `antialias`. With "polyphase" the sites are those of the anchors alone;
            with "alias-free" non-linearities follow.

    Raises:
        InputError: `method`, `recipe` or `placement` is unknown, or `model` does not take `example_input`.
        InputTypeError: `model` is no module, or `example_input` of another type.
    """
    check_choice("method", method, METHODS)
    check_recipe(recipe, placement)
    check_flag("stem", stem)
    model = with_modules(model)
    if method == "polyphase":
        return AnchorPlans(record(model, example_input)).sites()
    if method == "alias-free":
        check_alias_free(recipe, placement, "ideal")
    trace, plans = _plans(model, example_input, ALL if method == "alias-free" else stem, recipe, placement)
    found = _nonlinearities(model, example_input, trace, plans) if method == "alias-free" else []
    return [*(site for plan in plans for site in plan.sites), *(one.site for one in found)]


def antialias(
    model: nn.Module,
    example_input: ExampleInput,
    *,
    method: str = "blur",
    filter: FilterChoice = "bin4",
    stem: bool = False,
    recipe: str = "same-size",
    placement: str = "after",
    padding_mode: str = "auto",
    strict: bool = False,
    inplace: bool = False,
) -> nn.Module:
    """Put a low-pass filter in front of every subsampling of `model`; its weights stay what they are.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2))
    >>> antialias(model, torch.rand(1, 3, 32, 32))[2](torch.rand(1, 8, 30, 30)).shape
    torch.Size([1, 8, 15, 15])

    | baseline | becomes |
    | --- | --- |
    | max pooling at stride s | max at stride 1, then BlurPool(s) |
    | convolution at stride s, norm, activation | convolution at stride 1, norm, activation, BlurPool(s) |
    | 1x1 convolution at stride s, no activation behind | BlurPool(s), convolution at stride 1 |
    | other convolution at stride s, no activation behind | convolution at stride 1, norm, BlurPool(s) |
    | average pooling over s at stride s | BlurPool(s) |

    Two or more branches that subsample and meet in front of their activation are blurred once, behind it.

    The class of the model and of its layers and the keys, shapes and order of its `state_dict` stay. Poolings
    become instances of subclasses of theirs; other blurs are children named `antialias_before` and `antialias_after`,
    which a hook applies, or layers in a child named `antialias_calls`, which answer function calls. First a copy runs
    with blurs that do not filter. A site where it computes something else is left as it is and named in one warning.

    With `method="polyphase"` anchors stand in front of what subsamples, blurred or not: each sample's map is rolled so
    that its polyphase component of largest energy comes first. Where branches part whose maps meet again behind several
    sites, one anchor stands in front of all of them; where a decoder brings a map back, the roll is undone. With
    circular padding, and sizes that the total stride divides, no circular shift of the input changes the output
    (outputs with spatial axes move along), whatever the weights are: `dealias.certify` checks it.

    With `method="alias-free"` shifts by a fraction of a pixel change the output as little as possible: the filter is
    "ideal" at every site, the stem included, and activations, norms over channels and maxima are evaluated at twice the
    rate: a layer in front of them doubles the samples of a map, another one behind them halves them, without the waves
    that the map cannot hold. Polynomials of degree 3 at most (`dealias.nn.Quadratic`) are exact so, others nearly.
    The maps wrap around: the model is to pad circularly, see `dealias.to_circular`.

    Args:
        model: any module that runs; weights and training mode are kept.
        example_input: see `sites`; the values do not matter.
        method: "blur"; or "polyphase": anchors, with the blurs that `filter` asks for, "none" leaves the sites as they
            are; or "alias-free".
        filter: see `dealias.filters.resolve_filters`; or a function of the `Site`, or a mapping from module path to
            filter ("bin4" elsewhere). `dealias.filters.scaled` makes named filters as wide as the stride asks for. With
            "alias-free" leave it out.
        stem: also the first strided convolution, which costs most and which the paper leaves as it is.
        recipe: "same-size" keeps the size of every feature map; "zhang2019" makes the paper's released networks: the
            ResNets' first pooling has a 2x2 window without padding, a first convolution of stride 4 (AlexNet) gets
            stride 2 and a blur of stride 2, and average pooling rounds sizes up.
        placement: "after" puts the blur behind the non-linearity, as the paper does; "before" puts it in front of a
            strided convolution, which keeps its stride. That costs far less arithmetic and is weaker: what the
            convolution and the non-linearity bring in aliases. Poolings are the same with both.
        padding_mode: of the blurs, see `dealias.nn.BlurPool2d`; "auto" is "circular" where all padding convolutions
            of the model pad circularly, else "reflect".
        strict: raise an error in place of the warning. Sites that are left alone on purpose are no reason for either.
        inplace: change `model` itself; by default a copy.

    Returns:
        The converted model, of the class of `model` (of a subclass, if that is itself a pooling layer).

    Raises:
        InputError: an argument is out of range, `model` does not take `example_input`, or `strict` is violated.
        InputTypeError: `model` is no module, or `example_input` of another type.

    Warns:
        UserWarning: sites could not be anti-aliased, or there was nothing to do.

    Source: Zhang, *Making Convolutional Networks Shift-Invariant Again*, ICML 2019, section 3.2; of the anchors: Chaman
    and Dokmanic, *Truly shift-invariant convolutional neural networks*, CVPR 2021; of "alias-free": Michaeli et al.,
    *Alias-Free Convnets: Fractional Shift Invariance via Polynomial Activations*, CVPR 2023.
    """
    given = Arguments(
        method=method,
        filter=filter,
        stem=stem,
        recipe=recipe,
        placement=placement,
        padding_mode=padding_mode,
        strict=strict,
        inplace=inplace,
    )
    return _convert(model, example_input, given).model


def antialias_with_report(
    model: nn.Module, example_input: ExampleInput, **arguments: Unpack[Arguments]
) -> tuple[nn.Module, ConversionReport]:
    """`antialias` with the same arguments, errors and warnings; what it did and what that costs comes with the model.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2))
    >>> converted, report = antialias_with_report(model, torch.rand(1, 3, 32, 32))
    >>> report.flops, report.converted_flops
    (388800, 446400)
    """
    given = Arguments(
        method="blur",
        filter="bin4",
        stem=False,
        recipe="same-size",
        placement="after",
        padding_mode="auto",
        strict=False,
        inplace=False,
    )
    given.update(arguments)
    baseline = copy.deepcopy(model) if given["inplace"] else model
    done = _convert(model, example_input, given)
    filter = "ideal" if given["method"] == "alias-free" else given["filter"]
    settings = {"filter": _plain(filter), "stem": given["stem"], "recipe": given["recipe"]}
    return done.model, build_report(baseline, done, example_input, **settings)


def _plain(filter: FilterChoice) -> Any:
    """`filter` as JSON can hold it."""
    if hasattr(filter, "tolist"):  # arrays, tensors, NumPy's integers
        return filter.tolist()
    if isinstance(filter, Mapping):
        return {path: _plain(one) for path, one in filter.items()}
    if callable(filter):
        return getattr(filter, "__name__", type(filter).__name__)
    return filter if isinstance(filter, str | int | float) else [_plain(one) for one in filter]


def _plans(
    model: nn.Module, example_input: ExampleInput, stem: Stem, recipe: str, placement: str
) -> tuple[Trace, list[SitePlan]]:
    trace = record(model, example_input)
    plans = make_plans(trace, model, stem=stem, recipe=recipe, placement=placement)
    return trace, verified(model, example_input, trace, plans, recipe == "same-size")


def _convert(model: nn.Module, example_input: ExampleInput, given: Arguments) -> Conversion:
    check_arguments(given)
    if given["method"] == "alias-free":
        given = {**given, "filter": "ideal"}
    method, filter, strict = given["method"], given["filter"], given["strict"]
    if given["inplace"] and has_graphs(model):
        raise InputError("inplace=True: a graph of torch.export or torch.fx is converted into a copy alone")
    model = with_modules(model)
    if method == "polyphase" and isinstance(filter, str) and filter == "none":  # the sites stay as they are
        trace, plans = record(model, example_input), list[SitePlan]()
    else:
        stem: Stem = ALL if method == "alias-free" else given["stem"]
        trace, plans = _plans(model, example_input, stem, given["recipe"], given["placement"])
    placed = [plan for plan in plans if plan.is_placed]
    filters = filters_of(filter, plans)
    missed = _refuse_missed([site for plan in plans for site in plan.sites], strict)
    padding_mode = _padding_mode(given, trace)
    found = _nonlinearities(model, example_input, trace, plans) if method == "alias-free" else []
    missed += _refuse_missed([one.site for one in found], strict)
    edits = [one.edit for one in found if one.edit is not None]
    if method != "polyphase":
        _warn(plans, missed, stacklevel=4, changes=bool(placed or edits))
    scale, rate = given["recipe"] != "zhang2019", 2 if method == "alias-free" else 1
    blurrings = {plan: Blurring(filters[plan], padding_mode, scale, rate=rate) for plan in placed}
    check_ideal(blurrings, given["placement"])
    converted = model if given["inplace"] else copy.deepcopy(model)
    applied = apply(converted, placed, blurrings.__getitem__)
    for edit in edits:
        edit.apply(converted, Blurring("ideal", padding_mode, rate=rate))
    if placed or edits:
        watch_over(converted, [*(plan.decision.edits for plan in placed), *([edit] for edit in edits)])
    others = _anchor(converted, example_input, strict) if method == "polyphase" else [one.site for one in found]
    return Conversion(converted, trace, plans, applied, padding_mode, tuple(others))


def _nonlinearities(
    model: nn.Module, example_input: ExampleInput, trace: Trace, plans: Sequence[SitePlan]
) -> list[Nonlinearity]:
    return verified_rates(model, example_input, trace, plans, Nonlinearities(trace, plans).found())


def _padding_mode(given: Arguments, trace: Trace) -> str:
    """The border of the blurs."""
    padding_mode, circular = given["padding_mode"], _pads_circularly(trace)
    if padding_mode == "auto" and given["method"] == "alias-free" and not circular:
        raise InputError(
            "method='alias-free': its filters wrap around at the borders and layers of this model do not: use "
            "dealias.to_circular(model), or padding_mode='circular' all the same"
        )
    if padding_mode == "auto":
        return "circular" if circular else "reflect"
    return check_padding_mode(padding_mode, (IDEAL,) if given["method"] == "alias-free" else ())


def _anchor(model: nn.Module, example_input: ExampleInput, strict: bool) -> list[Site]:
    """Put anchors into `model`, and return a site for each change of resolution."""
    plans = AnchorPlans(record(model, example_input))
    sites = plans.sites()
    missed = _refuse_missed(sites, strict)
    plans.apply(model)
    words = [] if any(site.placed for site in sites) else ["no anchor can be placed: nothing is changed"]
    if missed:
        words += [f"without an anchor, {len(missed)} sites:", *(f"- {line}" for line in _lines(missed))]
    if words:
        warnings.warn("\n".join(words), stacklevel=4)
    return sites


def _refuse_missed(sites: Sequence[Site], strict: bool) -> list[Site]:
    """The sites where something should be placed and cannot be: an error with `strict`."""
    missed = [site for site in sites if site.status == "not placed"]
    if strict and missed:
        raise InputError(f"strict=True, and {len(missed)} sites cannot be anti-aliased: {'; '.join(_lines(missed))}")
    return missed


def _lines(missed: Sequence[Site]) -> list[str]:
    """One line for each kind, path and reason, with the number of sites that share it."""
    said = Counter(f"{site.kind}{f' `{site.path}`' if site.path else ''}: {site.reason}" for site in missed)
    return [f"{line} ({times} times)" if times > 1 else line for line, times in said.items()]


def _warn(plans: Sequence[SitePlan], missed: Sequence[Site], stacklevel: int, changes: bool) -> None:
    """One warning for all that the caller may not expect: nothing to do, or sites that stay aliased."""
    words = []
    unfiltered = [site for site in missed if site.kind != NONLINEARITY]
    downsampling = [site for plan in plans for site in plan.sites if site.kind not in GROWING]
    if not changes:
        words.append(
            "the model is already anti-aliased: nothing is changed"
            if any(site.kind == "blur" for site in downsampling)
            else "the model has no downsampling site at which a blur can be placed: nothing is changed"
        )
    if unfiltered:
        words.append(f"not anti-aliased, {len(unfiltered)} of {len(downsampling)} downsampling sites:")
    if len(missed) > len(unfiltered):
        words.append(f"not evaluated at twice the rate, {len(missed) - len(unfiltered)} non-linearities:")
    if words:
        warnings.warn("\n".join(["; ".join(words), *(f"- {line}" for line in _lines(missed))]), stacklevel=stacklevel)


def _pads_circularly(trace: Trace) -> bool:
    modules = {call.module for call in trace.calls}
    modes = {"circular" for module in modules if isinstance(module, _CIRCULAR_PADS)}
    for module in modules:
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and module.padding != "valid" and any(module.padding):
            modes.add(module.padding_mode)
    return modes == {"circular"}
