"""`antialias` and `sites`: record, plan, edit, and record again to see that the edits did what was planned."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, TypedDict, Unpack

from torch import nn

from dealias.convert.edits import AnswerConv, Blur, Blurring, ReplaceReLU
from dealias.convert.plan import RECIPES, Plan, make_plan
from dealias.convert.report import ConversionReport, build_report
from dealias.convert.sites import GROWING, Site
from dealias.convert.trace import Call, ExampleInput, Trace, record
from dealias.errors import InputError
from dealias.filters import Filter, resolve_filter
from dealias.functional import PADDING_MODES

_CIRCULAR_PADS = (nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d)


def sites(
    model: nn.Module, example_input: ExampleInput, *, stem: bool = False, recipe: str = "same-size"
) -> list[Site]:
    """Every place where `model` subsamples, and what `antialias` with the same arguments would do there.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU())
    >>> [(site.kind, site.path, site.output_size, site.placed) for site in sites(model, torch.rand(1, 3, 32, 32))]
    [('max_pool', '1', (15, 15), True), ('conv', '2', (7, 7), True)]

    The model runs once, in evaluation mode and without gradients, and is as before afterwards.

    Args:
        model: any module that runs.
        example_input: what the model is called with: a tensor, a tuple of positional arguments or a dict of keyword
            arguments. Sites are those that this input reaches.
        stem, recipe: see `antialias`.

    Raises:
        InputError: `recipe` is unknown, or `model` does not take `example_input`.
        InputTypeError: `model` is no module, or `example_input` of another type.
    """
    _check_choice("recipe", recipe, RECIPES)
    return [
        site for plan in make_plan(record(model, example_input), model, stem=stem, recipe=recipe) for site in plan.sites
    ]


def antialias(
    model: nn.Module,
    example_input: ExampleInput,
    *,
    filter: Filter = "bin4",
    stem: bool = False,
    recipe: str = "same-size",
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

    The class of the model and the keys, shapes and order of its `state_dict` stay. Blurs are layers of `dealias.nn` in
    place of poolings and ReLUs; children named `antialias_before` and `antialias_after` that a hook applies; or layers
    in a child named `antialias_calls`, which answer the `torch.nn.functional` calls that the module's forward makes.
    Sites that cannot be expressed so are left as they are, named in one warning.

    Args:
        model: any module that runs; weights and training mode are kept.
        example_input: what the model is called with: a tensor, a tuple of positional arguments or a dict of keyword
            arguments; the values do not matter.
        filter: see `dealias.filters.resolve_filter`.
        stem: also the first strided convolution, which costs most and which the paper leaves as it is.
        recipe: "same-size" keeps the size of every feature map; "zhang2019" makes the paper's released networks: the
            ResNets' first pooling has a 2x2 window without padding, a first convolution of stride 4 (AlexNet) gets
            stride 2 and a blur of stride 2, and average pooling rounds sizes up.
        padding_mode: of the blurs, see `dealias.nn.BlurPool2d`; "auto" is "circular" where all padding convolutions
            of the model pad circularly, else "reflect".
        strict: raise an error where a site cannot be anti-aliased, in place of the warning. Sites that are left alone
            on purpose (the stem, what is anti-aliased already) are none.
        inplace: change `model` itself; by default a copy.

    Returns:
        The converted model, of the class of `model` (unless that is itself a pooling layer).

    Raises:
        InputError: an argument is out of range, `model` does not take `example_input`, what `model` returns would
            change its shape, or a site cannot be anti-aliased and `strict` is set.
        InputTypeError: `model` is no module, or `example_input` of another type.

    Warns:
        UserWarning: sites could not be anti-aliased, or there was nothing to do.

    Source: Zhang, *Making Convolutional Networks Shift-Invariant Again*, ICML 2019, section 3.2.
    """
    return _convert(model, example_input, filter, stem, recipe, padding_mode, strict, inplace).model


class Arguments(TypedDict, total=False):
    """The keyword arguments of `antialias`."""

    filter: Filter
    stem: bool
    recipe: str
    padding_mode: str
    strict: bool
    inplace: bool


def antialias_with_report(
    model: nn.Module, example_input: ExampleInput, **arguments: Unpack[Arguments]
) -> tuple[nn.Module, ConversionReport]:
    """`antialias` with the same arguments, errors and warnings; what it did and what that costs comes with the model.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2))
    >>> converted, report = antialias_with_report(model, torch.rand(1, 3, 32, 32))
    >>> report.flops, report.converted_flops
    (388800, 446400)
    """
    given: Arguments = {
        "filter": "bin4",
        "stem": False,
        "recipe": "same-size",
        "padding_mode": "auto",
        "strict": False,
        "inplace": False,
    }
    given.update(arguments)
    baseline = copy.deepcopy(model) if given["inplace"] else model
    done = _convert(model, example_input, **given)
    report = build_report(
        (baseline, done.model),
        done.traces,
        done.plans,
        done.blurs,
        example_input,
        filter=_plain(given["filter"]),
        stem=given["stem"],
        recipe=given["recipe"],
        padding_mode=done.padding_mode,
    )
    return done.model, report


def _plain(filter: Filter) -> Any:
    """`filter` as JSON can hold it."""
    if hasattr(filter, "tolist"):  # arrays, tensors, NumPy's integers
        return filter.tolist()
    return filter if isinstance(filter, str | int) else list(filter)


@dataclass(frozen=True)
class _Conversion:
    """A converted model, and how it came to be; `blurs` belong to the placed plans and ran in the second trace."""

    model: nn.Module
    traces: tuple[Trace, Trace]
    plans: list[Plan]
    blurs: list[nn.Module]
    padding_mode: str


def _convert(
    model: nn.Module,
    example_input: ExampleInput,
    filter: Filter,
    stem: bool,
    recipe: str,
    padding_mode: str,
    strict: bool,
    inplace: bool,
) -> _Conversion:
    resolve_filter(filter)
    _check_choice("recipe", recipe, RECIPES)
    _check_choice("padding_mode", padding_mode, ("auto", *PADDING_MODES))
    trace = record(model, example_input)
    plans = make_plan(trace, model, stem=stem, recipe=recipe)
    placed = [plan for plan in plans if plan.blurs]
    missed = [site for plan in plans for site in plan.sites if site.status == "not placed"]
    if strict and missed:
        raise InputError(f"strict=True, and {len(missed)} sites cannot be anti-aliased: {'; '.join(_lines(missed))}")
    _warn(plans, missed, stacklevel=4)
    if padding_mode == "auto":
        padding_mode = "circular" if _pads_circularly(trace) else "reflect"
    if not placed:
        return _Conversion(model if inplace else copy.deepcopy(model), (trace, trace), plans, [], padding_mode)
    blurring = Blurring(filter, padding_mode)
    converted, blurs = _apply(copy.deepcopy(model), placed, blurring)
    after = _record_converted(converted, example_input)
    _verify(trace, after, placed, blurs, recipe)
    if inplace:
        if converted.__class__ is not model.__class__:
            raise InputError(
                f"inplace=True cannot make the {type(model).__name__} given as model another layer: use the returned "
                "model"
            )
        converted = _apply(model, placed, blurring)[0]
    return _Conversion(converted, (trace, after), plans, blurs, padding_mode)


def _check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InputError(f"{name}={value!r} is unknown: use one of {', '.join(choices)}")


def _lines(missed: Sequence[Site]) -> list[str]:
    """What and why, once for all sites of which the same is to be said."""
    said = Counter(f"{site.kind}{f' `{site.path}`' if site.path else ''}: {site.reason}" for site in missed)
    return [f"{line} ({times} times)" if times > 1 else line for line, times in said.items()]


def _warn(plans: Sequence[Plan], missed: Sequence[Site], stacklevel: int) -> None:
    """One warning for all that the caller may not expect: nothing to do, or sites that stay aliased."""
    words = []
    downsampling = [site for plan in plans for site in plan.sites if site.kind not in GROWING]
    if not any(plan.blurs for plan in plans):
        words.append(
            "the model is already anti-aliased: nothing is changed"
            if any(site.kind == "blur" for site in downsampling)
            else "the model has no downsampling site at which a blur can be placed: nothing is changed"
        )
    if missed:
        words.append(f"not anti-aliased, {len(missed)} of {len(downsampling)} downsampling sites:")
    if words:
        warnings.warn("\n".join(["; ".join(words), *(f"- {line}" for line in _lines(missed))]), stacklevel=stacklevel)


def _pads_circularly(trace: Trace) -> bool:
    modules = {id(call.module): call.module for call in trace.calls}.values()
    modes = [
        module.padding_mode
        for module in modules
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and module.padding != "valid" and any(module.padding)
    ]
    modes += ["circular" for module in modules if isinstance(module, _CIRCULAR_PADS)]
    return bool(modes) and set(modes) == {"circular"}


def _apply(model: nn.Module, plans: Sequence[Plan], blurring: Blurring) -> tuple[nn.Module, list[nn.Module]]:
    """Edit `model` by all `plans`; return it with the blurring layer of each plan."""
    edits = [(number, edit) for number, plan in enumerate(plans) for edit in plan.decision.edits]
    # a hook goes to the layer that stays
    edits.sort(key=lambda item: isinstance(item[1], Blur))
    blurs: dict[int, nn.Module] = {}
    for number, edit in edits:
        model, blur = edit.apply(model, blurring)
        if blur is not None:
            blurs[number] = blur
    return model, [blurs[number] for number in range(len(plans))]


def _record_converted(model: nn.Module, example_input: ExampleInput) -> Trace:
    try:
        return record(model, example_input)
    except InputError as error:
        raise InputError(f"model does not run at the sizes of its anti-aliased form: {error}") from error


def _verify(before: Trace, after: Trace, plans: Sequence[Plan], blurs: Sequence[nn.Module], recipe: str) -> None:
    """See that every blur ran as planned, and that all maps have their sizes."""
    name = "model cannot be anti-aliased as planned"
    for plan, blur in zip(plans, blurs, strict=True):
        site, edits, expected = plan.sites[0], plan.decision.edits, list(plan.blurred)
        calls = after.calls_of(blur)
        got = [call.output.shape[-len(site.stride) :] for call in calls if call.output is not None]
        if len(got) != len(expected) or (recipe == "same-size" and got != expected):
            raise InputError(
                f"{name}: the blur of {site.kind} `{site.path}` returned maps of {got} pixels, not {expected}"
            )
        behind = any(isinstance(edit, ReplaceReLU) or (isinstance(edit, Blur) and not edit.before) for edit in edits)
        if behind and any(map(_is_read_unblurred, calls)):
            raise InputError(
                f"{name}: the map in front of the blur of {site.kind} `{site.path}` is also read without it; read the "
                "result of an activation with inplace=True, not its argument"
            )
    if recipe == "same-size" and (wrong := _changed_convolution(before, after, plans)) is not None:
        raise InputError(f"{name}: {wrong}")
    if before.output_shapes != after.output_shapes:
        raise InputError(f"{name}: it returned {after.output_shapes} in place of {before.output_shapes}")


def _is_read_unblurred(call: Call) -> bool:
    """Whether what a blur took in is read after the blur; the user's hooks may read it before."""
    source, result = call.input, call.output
    if source is None or result is None or result.producer is None:
        return False
    return source.returned or any(node.index > result.producer.index for node in source.consumers)


def _changed_convolution(before: Trace, after: Trace, plans: Sequence[Plan]) -> str | None:
    """The first convolution that sees another map than before, e.g. as it pads according to its stride."""
    expected = {
        spot.node: spot.output_size  # the blur stands in front of these
        for plan in plans
        for edit in plan.decision.edits
        if (isinstance(edit, Blur) and edit.before and edit.path == plan.sites[0].path)
        or (isinstance(edit, AnswerConv) and edit.blur == "before")
        for spot in plan.spots
    }
    pairs = zip_longest(before.convolutions, after.convolutions)
    for old, new in pairs:
        if old is None or new is None:
            return "it convolves another number of times"
        size = new.inputs[0].shape[2:]
        if size != expected.get(old, old.inputs[0].shape[2:]):
            return f"`{old.call.path}` convolves maps of {size} pixels in place of {old.inputs[0].shape[2:]}"
    return None
