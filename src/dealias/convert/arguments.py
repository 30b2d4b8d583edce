"""The arguments of `antialias` and `sites`: their types, and what is refused before any work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypedDict

from dealias.convert.downsampling import Site
from dealias.convert.layers import Blurring
from dealias.convert.plan import PLACEMENTS, RECIPES, SitePlan
from dealias.errors import InputError, check_flag, shown
from dealias.filters import IDEAL, Filter, resolve_filters
from dealias.functional import PADDING_MODES, check_padding_mode

METHODS = ("blur", "polyphase", "alias-free")
FilterChoice: TypeAlias = Filter | Callable[[Site], Filter] | Mapping[str, Filter]
"""One filter for all sites, a function of the site, or filters by module path ("bin4" elsewhere)."""


class Arguments(TypedDict, total=False):
    """The keyword arguments of `antialias`."""

    method: str
    filter: FilterChoice
    stem: bool
    recipe: str
    placement: str
    padding_mode: str
    strict: bool
    inplace: bool


def check_arguments(given: Arguments) -> None:
    """Refuse what is out of range for any model."""
    check_choice("method", given["method"], METHODS)
    check_recipe(given["recipe"], given["placement"])
    for name, flag in (("stem", given["stem"]), ("strict", given["strict"]), ("inplace", given["inplace"])):
        check_flag(name, flag)
    check_choice("padding_mode", given["padding_mode"], ("auto", *PADDING_MODES))
    filter = given["filter"]
    if given["method"] == "alias-free":
        check_alias_free(given["recipe"], given["placement"], filter)
    if not isinstance(filter, Mapping) and not callable(filter):
        _check_filter(filter, None)


def filters_of(filter: FilterChoice, plans: Sequence[SitePlan]) -> dict[SitePlan, Filter]:
    """The filter of each placed plan: that of its first site."""
    if isinstance(filter, Mapping):
        _check_paths(filter, plans)
    chosen: dict[SitePlan, Filter] = {}
    for plan in plans:
        if plan.is_placed:
            site = plan.sites[0]
            one = filter(site) if callable(filter) else filter
            if isinstance(one, Mapping):
                one = next((one[site.path] for site in plan.sites if site.path in one), "bin4")
            _check_filter(one, site)
            chosen[plan] = one
    return chosen


def _check_paths(filter: Mapping[str, Filter], plans: Sequence[SitePlan]) -> None:
    sites = {site.path: site for plan in plans for site in plan.sites}
    for path in filter:
        if path not in sites:
            raise InputError(f"filter has the path {path!r}, which is not the path of a site: see dealias.sites")
        if not sites[path].placed:
            raise InputError(f"filter has the path {path!r}, where no blur is placed: {sites[path].reason}")
    for plan in plans:
        given = [site.path for site in plan.sites if site.path in filter]
        if len({str(filter[path]) for path in given}) > 1:
            raise InputError(f"filter has several filters for {' and '.join(given)}, which share one blur: give one")


def _check_filter(filter: Filter, site: Site | None) -> None:
    axes = len(site.stride) if site is not None else len(filter) if isinstance(filter, tuple) else 1
    try:
        resolve_filters(filter, axes)
    except InputError as error:
        where = "" if site is None else f" at {site.kind} `{site.path}`"
        raise type(error)(f"{error}{where}") from error


def check_ideal(blurrings: Mapping[SitePlan, Blurring], placement: str) -> None:
    """Refuse the filter "ideal" where it has no meaning."""
    for plan, blurring in blurrings.items():
        taps = blurring.taps(plan.sites[0].stride)
        check_padding_mode(blurring.padding_mode, taps)
        if IDEAL in taps and placement == "before":
            raise InputError("filter='ideal' with placement='before': it filters and subsamples at once: use 'after'")


def check_alias_free(recipe: str, placement: str, filter: FilterChoice) -> None:
    """Refuse what the method has no room for: all its filters are ideal, and stand behind what they filter."""
    others = (("recipe", recipe, "same-size"), ("placement", placement, "after"))
    for name, value, only in others:
        if value != only:
            raise InputError(f"{name}={value!r} with method='alias-free': it takes {name}={only!r} alone")
    if not isinstance(filter, str) or filter not in ("ideal", "bin4"):
        raise InputError(f"filter={shown(filter)} with method='alias-free': all its filters are ideal: leave it out")


def check_recipe(recipe: str, placement: str) -> None:
    """Refuse unknown ones, and pairs that contradict each other."""
    check_choice("recipe", recipe, RECIPES)
    check_choice("placement", placement, PLACEMENTS)
    if recipe == "zhang2019" and placement != "after":
        raise InputError(f"placement={placement!r} with recipe='zhang2019': the paper blurs after: use 'after'")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Refuse a value that is not one of `choices`."""
    if value not in choices:
        raise InputError(f"{name}={value!r} is unknown: use one of {', '.join(choices)}")
