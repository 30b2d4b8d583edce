"""Convert networks of torchvision and timm, audit every conversion, and write the tables of docs/conversion.md.

    python benchmarks/conversion.py sweep          # an hour on one core; goes on where it was stopped
    python benchmarks/conversion.py equivariance   # half an hour
    python benchmarks/conversion.py family         # five minutes; needs the packages of requirements-networks.txt
    python benchmarks/conversion.py tables

Networks have random weights. Results gather in runs/conversion/, one line of JSON for each network.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import recorded
import torch
from conversion_audit import KINDS, sampling
from tables import as_markdown, replace_section
from torch import Tensor, nn

from dealias.benchmark import Row
from dealias.convert import antialias, antialias_with_report
from dealias.models import create_model, default_input_size

RESULTS = Path("runs/conversion")
PAGE = Path("docs/conversion.md")

NETWORKS = {
    "torchvision": """
        alexnet vgg11 vgg16_bn resnet18 resnet50 resnext50_32x4d wide_resnet50_2 densenet121 densenet161 mobilenet_v2
        mobilenet_v3_large mobilenet_v3_small googlenet inception_v3 squeezenet1_0 squeezenet1_1 shufflenet_v2_x1_0
        mnasnet1_0 efficientnet_b0 efficientnet_v2_s regnet_y_400mf regnet_x_400mf convnext_tiny swin_t swin_v2_t
        vit_b_32 maxvit_t
    """,
    "timm": """
        resnet18 resnet50 resnet50d resnet26t seresnet50 skresnet18 ecaresnet50t resnest14d res2net50_26w_4s
        res2next50 resnetblur50 resnetaa50 resnetv2_50 resnetv2_50d_gn resnetv2_50x1_bit nf_resnet50 nfnet_f0
        dm_nfnet_f0 eca_nfnet_l0 gernet_s repvgg_a0 regnetx_002 regnety_002 regnetv_040 regnetz_b16 efficientnet_b0
        tf_efficientnet_b0 tf_efficientnetv2_b0 efficientnet_lite0 tf_efficientnet_lite0 efficientnet_es mobilenetv1_100
        mobilenetv2_100 mobilenetv3_large_100 tf_mobilenetv3_large_100 mobilenetv4_conv_small mnasnet_100 semnasnet_100
        fbnetc_100 spnasnet_100 mixnet_s tf_mixnet_s hardcorenas_a lcnet_050 tinynet_a ghostnet_100 ghostnetv2_100
        rexnet_100 densenet121 densenetblur121d vgg11_bn inception_v3 inception_v4 inception_resnet_v2
        xception41 xception65p dla34 dla60x hrnet_w18_small dpn68 selecsls42b cspresnet50 cspdarknet53 cs3darknet_s
        darknet53 vovnet39a ese_vovnet19b_dw hgnet_tiny hgnetv2_b0 resnet50_gn resnet33ts rexnetr_200 rdnet_tiny
        convnext_atto convnextv2_atto convmixer_768_32 coatnet_pico_rw_224 coat_tiny maxvit_rmlp_pico_rw_256
        mobilevit_xxs mobilevitv2_050 mobileone_s0 edgenext_xx_small efficientformer_l1 efficientformerv2_s0
        efficientvit_b0 efficientvit_m0 fastvit_t8 focalnet_tiny_srf inception_next_tiny levit_128s mambaout_femto
        poolformer_s12 poolformerv2_s12 pvt_v2_b0 repghostnet_050 repvit_m0_9 starnet_s1 swin_tiny_patch4_window7_224
        swinv2_tiny_window8_256 tiny_vit_5m_224 tresnet_m twins_svt_small visformer_tiny vit_tiny_patch16_224
        xcit_nano_12_p16_224
        crossvit_tiny_240 davit_tiny nest_tiny gcvit_xxtiny caformer_s18 convformer_s18 halonet26t lambda_resnet26t
        botnet26t_256 bat_resnext26ts eca_halonext26ts volo_d1_224 cait_xxs24_224 tnt_s_legacy_patch16_224 nasnetalarge
    """,
}
FAMILIES = """
    torchvision:alexnet torchvision:vgg11_bn torchvision:resnet18 torchvision:resnet50 torchvision:densenet121
    torchvision:mobilenet_v2 torchvision:mobilenet_v3_small torchvision:googlenet torchvision:squeezenet1_1
    torchvision:shufflenet_v2_x1_0 torchvision:mnasnet1_0 torchvision:efficientnet_b0
    torchvision:regnet_y_400mf torchvision:convnext_tiny timm:resnet26t timm:res2net50_26w_4s timm:skresnet18
    timm:resnetv2_50 timm:nf_resnet50 timm:xception41 timm:dla34 timm:hrnet_w18_small timm:cspresnet50 timm:repvgg_a0
    timm:ghostnet_100 timm:rexnet_100 timm:vovnet39a timm:hgnetv2_b0 timm:poolformer_s12
"""


EVERYTHING = [f"{source}:{name}" for source, names in NETWORKS.items() for name in names.split()]

# Their own blurs are to be recognised by their values.
WITH_VALUES = ("timm:resnetblur50", "timm:resnetaa50", "timm:densenetblur121d", "timm:tresnet_m")


def build(name: str, device: str = "cpu") -> nn.Module:
    """A network with random weights, or with shapes alone on the device "meta", in evaluation mode."""
    torch.manual_seed(0)
    with warnings.catch_warnings(action="ignore"):
        if device == "meta" and name not in WITH_VALUES:
            with suppress(RuntimeError), torch.device("meta"):  # raised where it computes with its weights' values
                return create_model(name).eval()
        return create_model(name).eval()


def convolved_sizes(model: nn.Module, x: Tensor) -> dict[str, Any]:
    """The size of the map in front of each convolution and behind each part of the model, by hooks of PyTorch alone."""
    found: dict[str, Any] = {}

    def note_input(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            found.setdefault(f"> {name}", tuple(args[0].shape[2:]))

        return hook

    def note_output(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            found.setdefault(f"{name} >", tuple(output.shape) if isinstance(output, Tensor) else None)

        return hook

    hooks = [
        module.register_forward_pre_hook(note_input(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    hooks += [
        module.register_forward_hook(note_output(name))
        for name, module in model.named_children()
        if any(True for _ in module.children()) and not name.startswith("antialias_")
    ]
    with torch.no_grad():
        output = model(x)
    for hook in hooks:
        hook.remove()
    found["output"] = [tuple(one.shape) for one in torch.utils._pytree.tree_leaves(output) if isinstance(one, Tensor)]
    return found


def same_maps(baseline: nn.Module, converted: nn.Module, x: Tensor) -> tuple[int, list[str]]:
    """How many maps were compared, and the parts of the model that return a map before its blur.

    A 1x1 convolution with the blur in front of it sees the small map. A part whose last convolution has its activation
    in the next part (as the stems of pre-activation networks do) returns the dense map.
    """
    before, after = convolved_sizes(baseline, x), convolved_sizes(converted, x)
    layers = dict(baseline.named_modules())
    dense = []
    for key, size in before.items():
        layer: Any = layers.get(key.removeprefix("> "))
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and after[key] != size:
            size = tuple(-(-pixels // step) for pixels, step in zip(size, layer.stride, strict=True))
        if key.endswith(" >") and size is not None and len(size) == 4 and after[key][2] > size[2]:
            dense.append(key.removesuffix(" >"))
        elif after[key] != size:
            raise AssertionError(f"{key} is {after[key]}, not {size}")
    return len(before), dense


def check(name: str) -> dict[str, Any]:
    """Convert one network and audit it; an error ends the check, and is its result."""
    started = time.perf_counter()
    baseline = build(name, "meta")
    device = next(baseline.parameters()).device
    channels, height, width = default_input_size(name)
    x = torch.rand(1, channels, height, width, device=device)
    with warnings.catch_warnings(action="ignore"):
        converted, report = antialias_with_report(baseline, x)
    assert type(converted) is type(baseline)
    state = [(key, value.shape) for key, value in baseline.state_dict().items()]
    assert [(key, value.shape) for key, value in converted.state_dict().items()] == state, "state_dict"
    maps, dense = same_maps(baseline, converted, x)
    other = torch.rand(1, channels, height + 33, width + 33, device=device)
    try:
        convolved_sizes(baseline, other)
    except (RuntimeError, AssertionError, ValueError):
        sizes = 1  # it takes one size only
    else:
        same_maps(baseline, converted, other)
        sizes = 2
    wanted = Counter((site.kind, site.stride, site.output_size) for site in report.sites if site.kind in KINDS)
    stay = Counter(
        (site.kind, site.stride, site.output_size)
        for site in report.sites
        if site.kind in KINDS and site.status != "placed"
    )
    reported_blurs = sum(site.kind == "blur" for site in report.sites)
    found, blurs = sampling(baseline, x)
    missed = visible(found) - visible(wanted)
    invented = visible(wanted) - visible(found)
    remaining, blurs_after = sampling(converted, x)
    aliased = visible(remaining) - visible(stay)
    placed = sum(site.placed for site in report.sites)
    before, after = (recorded.record(one, lambda model: model(x)) for one in (baseline, converted))
    return {
        "sites": sum(wanted.values()) + reported_blurs,
        "placed": placed,
        "already": reported_blurs,
        "left": sum(site.status == "left alone" and site.kind in KINDS for site in report.sites),
        "refused": dict(Counter(site.kind for site in report.sites if site.status == "not placed")),
        "missed": [str(one) for one in missed.elements()],
        "invented": [str(one) for one in invented.elements()],
        "aliased": [str(one) for one in aliased.elements()],
        "blurs": [blurs, blurs_after],
        "early": recorded.early_blurs(after, recorded.strided_weights(before)),
        "maps": maps,
        "dense": dense,
        "sizes": sizes,
        "flops": [report.flops, report.converted_flops],
        "memory": [report.activation_bytes, report.converted_activation_bytes],
        "seconds": round(time.perf_counter() - started, 1),
    }


def visible(samples: Counter[Any]) -> Counter[Any]:
    """What both sides name alike: views and slices that rearrange pixels have no one form in a graph."""
    return Counter({sample: times for sample, times in samples.items() if sample[0] != "pixel_unshuffle"})


def gather(names: list[str], path: Path, measure: Callable[[str], dict[str, Any]]) -> None:
    """Measure each network that `path` does not hold yet, and append its line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done = {line["name"] for line in read(path)}
    for name in names:
        if name in done:
            continue
        try:
            result = measure(name)
        except Exception as error:  # every library fails in its own way
            result = {"error": f"{type(error).__name__}: {error}"[:500]}
        with path.open("a") as file:
            file.write(json.dumps({"name": name, **result}) + "\n")
        print(name, result, flush=True)


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of `path`, if it exists."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def make_circular(model: nn.Module) -> None:
    """Let all convolutions that pad wrap around."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and not isinstance(module.padding, str) and any(module.padding):
            module.padding_mode = "circular"


def settle(model: nn.Module, images: Tensor) -> None:
    """Give the norms the statistics of `images`, so that random weights keep maps in range."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        model(images)
    for norm in norms:
        norm.eval()


def last_maps(model: nn.Module, x: Tensor) -> list[str]:
    """The modules that return feature maps of more than one pixel, in order."""
    found: list[str] = []

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
                found.append(name)

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if name]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return found


SHIFTS = ((5,), (5, 18))  # rows and columns, in pixels: odd and even
PIXELS = 128  # a multiple of all strides, so that shifts are circular at every layer


def equivariance(name: str) -> dict[str, Any]:
    """Internal feature distance of the last feature map: the mean over some circular shifts, before and after."""
    from dealias.data import photos
    from dealias.metrics import internal_feature_distance

    images = torch.stack(list(photos(PIXELS).values())[:3]).sub(0.45).div(0.225)
    baseline = build(name)
    make_circular(baseline)
    settle(baseline, images)
    layer = last_maps(baseline, images[:1])[-1]
    with warnings.catch_warnings(action="ignore"):
        filtered, with_stem = (antialias(baseline, images[:1], stem=stem) for stem in (False, True))
    distances = {}
    for label, model in (("baseline", baseline), ("filtered", filtered), ("with stem", with_stem)):
        settle(model, images)
        distances[label] = float(internal_feature_distance(model, images, layer, shifts=SHIFTS).mean())
    return {"layer": layer, **distances}


def networks_table(lines: list[dict[str, Any]]) -> str:
    """The table of all networks, in Markdown."""
    counts = ("sites", "blurred", "left alone")
    remarks = "not placed, and notes"
    costs = ("maps compared", "FLOPs", "memory")
    columns = ("network", *counts, remarks, *costs)
    rows: list[Row] = []
    for line in lines:
        if "error" in line:
            rows.append(dict.fromkeys(columns, "") | {"network": line["name"], remarks: first_words(line["error"])})
            continue
        notes = [f"{times} {kind}" for kind, times in line["refused"].items()]
        notes += [f"`{part}` returns the map before its blur" for part in line.get("dense", [])]
        pairs = (line["flops"], line["memory"])
        ratios = [f"{100 * (after / before - 1):+.0f}%" if before else "" for before, after in pairs]
        blurred = f"{line['placed']}" + (f" (+{line['already']} before)" if line["already"] else "")
        cells = [line["name"], line["sites"], blurred, line["left"], "; ".join(notes), line["maps"], *ratios]
        rows.append(dict(zip(columns, cells, strict=True)))
    return as_markdown(rows, counts + costs)


def first_words(error: str) -> str:
    """As much of an error as fits a table."""
    return error.splitlines()[0][:120]


def summary(lines: list[dict[str, Any]]) -> str:
    """What the table says, in one paragraph."""
    good = [line for line in lines if "error" not in line]
    clean = [line for line in good if not (line["missed"] or line["aliased"] or line.get("early"))]
    whole = [line for line in clean if not line["refused"]]
    sites, placed = (sum(line[key] for line in good) for key in ("sites", "placed"))
    return (
        f"{len(lines)} networks; {len(good)} converted with the class, the `state_dict` and the sizes of all maps "
        f"kept; {len(clean)} without a finding of the audit, {len(whole)} of these with no site that could not be "
        f"placed. {placed} of {sites} downsampling sites are blurred. {audited(good)}."
    )


def audited(lines: list[dict[str, Any]]) -> str:
    """What the audit found, in numbers."""
    missed, early = (sum(len(line.get(key, ())) for line in lines) for key in ("missed", "early"))
    unseen = sum("early" not in line for line in lines)
    unknown = f" ({unseen} networks without that check)" if unseen else ""
    return f"{missed} sites missed, {early} blurs in front of a non-linearity{unknown}"


def family_summary(lines: list[dict[str, Any]]) -> str:
    """What the second family's table says, in one paragraph."""
    good = [line for line in lines if "error" not in line]
    whole = [line for line in good if not (line["findings"] or line["aliased"] or line["missed"] or line["early"])]
    sites, placed = (sum(line[key] for line in good) for key in ("sites", "placed"))
    exported = sum(line["audited"] == "export" for line in good)
    return (
        f"{len(lines)} networks; {len(good)} converted, {len(whole)} of these without a finding. {placed} of {sites} "
        f"downsampling sites are blurred. {exported} were audited by their exported graphs, the others by what ran. "
        f"{audited(good)}."
    )


def family_table(lines: list[dict[str, Any]]) -> str:
    """The table of the second family, in Markdown."""
    remarks = "not placed, and findings"
    rows: list[Row] = []
    for line in lines:
        if "error" in line:
            rows.append({"network": line["name"], "sites": "", "blurred": "", "left alone": "", remarks: line["error"]})
            continue
        times: Counter[str] = Counter()
        for kind, _, _, number in line["refused"]:
            times[kind] += number
        notes = [f"{number} {kind}" for kind, number in times.items()] + line["findings"] + line["notes"]
        notes += [f"missed {one}" for one in line["missed"]] + [f"aliased {one}" for one in line["aliased"]]
        cells = [line["name"], line["sites"], line["placed"], line["left"], "; ".join(notes + line["early"])]
        rows.append(dict(zip(("network", "sites", "blurred", "left alone", remarks), cells, strict=True)))
    return as_markdown(rows, ("sites", "blurred", "left alone")) if rows else "Not run yet."


def equivariance_table(lines: list[dict[str, Any]]) -> str:
    """The table of feature distances, in Markdown."""
    labels = {"baseline": "baseline", "anti-aliased": "filtered", "and its stem": "with stem"}
    rows: list[Row] = []
    for line in lines:
        shown = first_words(line["error"]) if "error" in line else f"`{line['layer']}`"
        values = {name: f"{line[label]:.4f}" if label in line else "" for name, label in labels.items()}
        rows.append({"network": line["name"], "last feature map": shown, **values})
    return as_markdown(rows, list(labels))


def write_tables() -> None:
    """Replace the tables between their marks in the page."""
    networks = sorted(read(RESULTS / "networks.jsonl"), key=lambda line: EVERYTHING.index(line["name"]))
    distances, family = (read(RESULTS / f"{name}.jsonl") for name in ("equivariance", "family"))
    sections: dict[str, str] = {}  # what was not measured here stays as it is
    if networks:
        sections |= {"summary": summary(networks), "networks": networks_table(networks)}
    if distances:
        sections["equivariance"] = equivariance_table(distances)
    if family:
        sections["family"] = f"{family_summary(family)}\n\n{family_table(family)}"
    for name, content in sections.items():
        replace_section(PAGE, f"benchmarks/conversion.py, {name}", content)
    for lines, words in ((networks, summary), (family, family_summary)):
        if lines:
            print(words(lines))


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("sweep", "equivariance", "family", "tables"))
    parser.add_argument("names", nargs="*", help="networks, such as timm:resnet50d; default: the whole list")
    arguments = parser.parse_args()
    if arguments.what == "sweep":
        gather(arguments.names or EVERYTHING, RESULTS / "networks.jsonl", check)
    elif arguments.what == "equivariance":
        gather(arguments.names or FAMILIES.split(), RESULTS / "equivariance.jsonl", equivariance)
    elif arguments.what == "family":
        from family import CASES  # whose packages the other parts do without
        from family_audit import check_case

        cases = {case.name: case for case in CASES}
        gather(arguments.names or list(cases), RESULTS / "family.jsonl", lambda name: check_case(cases[name]))
    else:
        write_tables()


if __name__ == "__main__":
    sys.exit(main())
