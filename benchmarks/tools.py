"""Call the tools that people call after conversion, on 21 networks, and write the table of docs/tools.md.

    python benchmarks/tools.py sweep     # half an hour on one core; goes on where it was stopped
    python benchmarks/tools.py tables

Networks have random weights. Each tool is tried on the plain network first: where it does not work there, the pair does
not count. Then on the anti-aliased network, where the function must stay what it was. Results gather in
runs/tools/results.jsonl, one line of JSON for each network and tool.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from family import import_torchvision, randomize, yolo
from outputs import call, difference, leaves
from tables import as_markdown, replace_section
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dealias.benchmark import Row
from dealias.convert import antialias
from dealias.errors import InputError, InputTypeError
from dealias.models import create_model

torchvision: Any = import_torchvision()

RESULTS = Path("runs/tools/results.jsonl")
PAGE = Path("docs/tools.md")

NETWORKS = {
    "timm:resnet18": 64,
    "timm:resnetv2_50": 64,
    "timm:mobilenetv3_small_100": 64,
    "timm:efficientnet_b0": 64,
    "timm:repvgg_a0": 64,
    "timm:mobileone_s0": 64,
    "timm:levit_128s": 224,
    "timm:fastvit_t8": 64,
    "torchvision:resnet18": 64,
    "torchvision:vgg11_bn": 64,
    "torchvision:alexnet": 64,
    "torchvision:densenet121": 64,
    "torchvision:googlenet": 64,
    "torchvision:mobilenet_v2": 64,
    "torchvision:shufflenet_v2_x0_5": 64,
    "torchvision:regnet_y_400mf": 64,
    "torchvision:lraspp_mobilenet_v3_large": 64,
    "ultralytics:yolov3-tiny": 64,
    "ultralytics:yolov8n": 64,
    "ultralytics:yolo11n": 64,
    "ultralytics:yolo11n-seg": 64,
}
# torchvision has forms of these that the eager quantisation takes, with the same layers.
QUANTIZABLE = ("resnet18", "googlenet", "mobilenet_v2", "shufflenet_v2_x0_5")

SAME, REFUSED, CHANGED, ERROR, APART = "same", "refused", "CHANGED", "error", "-"
LEGEND = {
    SAME: "the anti-aliased network computes what it computed before the tool",
    REFUSED: "one line says what to do instead; the lines stand below",
    CHANGED: "the function changed in silence",
    ERROR: "an exception that does not say what to do",
    APART: "the tool does not work on the plain network either",
}

Pair = tuple[Any, Any]
"""What a network returns with the tool, and what it should return."""


class DoesNotApplyError(Exception):
    """The tool has nothing to do on this network."""


@dataclass(frozen=True)
class Tool:
    """A tool: `use` applies it and returns pairs of outputs to compare, by what they show.

    Args:
        name: as the table shows it.
        use: takes a network (that it may change), the network's images and how to convert a network: `antialias`, or
            nothing on the plain network.
        lossy: the names of pairs that may differ by as much as quantisation costs the plain network.
        quantizable: whether it wants torchvision's quantizable form of the network, where there is one.
    """

    name: str
    use: Callable[[nn.Module, Tensor, Callable[[nn.Module], nn.Module]], dict[str, Pair]]
    lossy: tuple[str, ...] = ()
    quantizable: bool = False


def build(name: str, quantizable: bool = False) -> nn.Module:
    """A network with random weights and random batch statistics, in evaluation mode."""
    return copy.deepcopy(_build(name, quantizable))


@lru_cache(maxsize=2)
def _build(name: str, quantizable: bool) -> nn.Module:
    source, _, network = name.partition(":")
    torch.manual_seed(0)
    model: Any
    if source == "ultralytics":
        model = yolo(network)().eval()
        model.model[-1].export, model.model[-1].format = True, "torchscript"  # as its exporter does: tensors come out
        return model
    if source == "torchvision" and quantizable and network in QUANTIZABLE:
        arguments = {"aux_logits": False} if network == "googlenet" else {}
        model = getattr(torchvision.models.quantization, network)(quantize=False, **arguments)
    elif network == "googlenet":
        model = torchvision.models.googlenet(aux_logits=False, init_weights=False)
    elif network == "lraspp_mobilenet_v3_large":
        model = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights_backbone=None)
    else:
        model = create_model(name)
    if network in ("alexnet", "vgg11_bn"):
        model.classifier = nn.Linear(256 * 36 if network == "alexnet" else 512 * 49, 10)  # 100 M weights less
    return randomize(model).eval()


def other_weights(model: nn.Module, seed: int = 3) -> nn.Module:
    """The model with all its parameters scaled at random, in place; it stays in range."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 0.3 * torch.rand(parameter.shape, generator=generator))
    return model


def after(tool: Callable[[nn.Module], nn.Module | None]) -> Callable[..., dict[str, Pair]]:
    """A tool that changes a network or returns another one, whose function stays."""

    def use(model: nn.Module, x: Tensor, convert: Callable[[nn.Module], nn.Module]) -> dict[str, Pair]:
        converted = convert(model)
        expected = call(converted, x)
        changed = tool(converted)
        changed = converted if changed is None else changed
        return {"output": (call(changed.eval(), x), expected)}

    return use


def sync_batchnorm(model: nn.Module) -> nn.Module:
    """Every batch norm becomes another module; timm's own have a function of timm's for that."""
    from timm.layers import convert_sync_batchnorm

    if type(model).__module__.startswith("timm."):
        return convert_sync_batchnorm(model)
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def freeze(model: nn.Module) -> nn.Module:
    """Every batch norm becomes another module."""
    from timm.utils.model import freeze_batch_norm_2d

    return freeze_batch_norm_2d(model)


def reparameterize(model: nn.Module) -> nn.Module:
    """Branches and norms become one convolution."""
    from timm.utils.model import reparameterize_model

    words = ("reparameterize", "fuse", "switch_to_deploy", "reparameterize_unireplknet")
    if not any(hasattr(module, word) for module in model.modules() for word in words):
        raise DoesNotApplyError
    return reparameterize_model(model)


def own_fuse(model: Any) -> nn.Module:
    """The method of detectors, and of torchvision's quantizable networks."""
    if hasattr(model, "fuse_model"):
        model.fuse_model()
        return model
    if not hasattr(model, "fuse"):
        raise DoesNotApplyError
    return model.fuse(verbose=False)


def chains(model: nn.Module, x: Tensor) -> list[list[str]]:
    """The names of convolution, norm and, where it follows, ReLU: each reads what the one before made."""
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU)
    calls: list[tuple[str, int, Any, Any]] = []  # name, kind, what it takes in and returns
    kept: list[Tensor] = []  # no id is given out twice
    waiting: list[Any] = []

    def state(tensor: Tensor) -> tuple[int, int]:
        kept.append(tensor)
        return id(tensor), tensor._version  # which changes where something is added in place

    def before(module: nn.Module, args: Any) -> None:
        waiting.append(state(args[0]))

    def behind(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            calls.append((name, kinds.index(type(module)), waiting.pop(), state(output)))

        return hook

    hooks: list[Any] = []
    for name, module in model.named_modules():
        if type(module) in kinds:
            hooks += [module.register_forward_pre_hook(before), module.register_forward_hook(behind(name))]
    call(model, x)
    for hook in hooks:
        hook.remove()
    times = Counter(name for name, *_ in calls)
    found = []
    for index, (name, kind, _, result) in enumerate(calls):
        chain = [name]
        for follower, other, source, output in calls[index + 1 : index + 3]:
            if kind or other != len(chain) or source != result or times[name] + times[follower] > 2:
                break
            chain.append(follower)
            result = output
        if len(chain) > 1:
            found.append(chain)
    return found


def fuse_modules(model: nn.Module, x: Tensor, convert: Callable[[nn.Module], nn.Module]) -> dict[str, Pair]:
    """PyTorch's fusion of named triples; the names are those of the plain network."""
    if not (names := chains(model, x)):
        raise DoesNotApplyError
    converted = convert(model)
    expected = call(converted, x)
    return {"output": (call(torch.ao.quantization.fuse_modules(converted, names), x), expected)}


def eager_quantization(model: nn.Module, x: Tensor, convert: Any, *, training: bool = False) -> dict[str, Pair]:
    """Fusion, observers, convolutions of 8 bits: the flow that names modules."""
    from torch.ao import quantization as q

    own = hasattr(model, "fuse_model")
    names = [] if own else chains(model, x)
    converted: Any = convert(model)
    expected = call(converted, x)
    if own:
        converted.fuse_model(is_qat=training) if training else converted.fuse_model()
    elif names:
        if training:
            converted.train()
        converted = (q.fuse_modules_qat if training else q.fuse_modules)(converted, names)
    wrapped = converted if own else q.QuantWrapper(converted)
    if training:
        wrapped.train().qconfig = q.get_default_qat_qconfig("x86")
        prepared = q.prepare_qat(wrapped).eval()
        prepared.apply(q.enable_observer)
        call(prepared.apply(q.disable_fake_quant), x)
    else:
        wrapped.eval().qconfig = quick_qconfig()
        prepared = q.prepare(wrapped)
    pairs = {"prepared": (call(prepared, x), expected)}
    prepared.apply(q.enable_fake_quant)
    return pairs | {"quantised": (call(q.convert(prepared.eval()), x), expected)}


def quick_qconfig() -> Any:
    """Ranges by their extremes: PyTorch's default histograms take minutes for a network of many layers."""
    from torch.ao import quantization as q

    activation = q.MinMaxObserver.with_args(dtype=torch.quint8, reduce_range=True)
    return q.QConfig(activation=activation, weight=q.default_per_channel_weight_observer)


def fx_quantization(model: nn.Module, x: Tensor, convert: Any, *, training: bool = False) -> dict[str, Pair]:
    """The flow that traces the network."""
    from torch.ao import quantization as q
    from torch.ao.quantization import quantize_fx

    converted = convert(model)
    expected = call(converted, x)
    if training:
        mapping = q.get_default_qat_qconfig_mapping("x86")
        prepared = quantize_fx.prepare_qat_fx(converted.train(), mapping, (x,)).eval()
        prepared.apply(q.enable_observer)
        call(prepared.apply(q.disable_fake_quant), x)
    else:
        prepared = quantize_fx.prepare_fx(converted, q.QConfigMapping().set_global(quick_qconfig()), (x,))
    pairs = {"prepared": (call(prepared, x), expected)}
    prepared.apply(q.enable_fake_quant)
    return pairs | {"quantised": (call(quantize_fx.convert_fx(prepared), x), expected)}


def feature_extractor(model: nn.Module, x: Tensor, convert: Any) -> dict[str, Pair]:
    """torchvision's features of the model's parts, against what hooks see there."""
    from torchvision.models.feature_extraction import create_feature_extractor

    converted = convert(model)
    names = [name for name, child in model.named_children() if type(child) is nn.Sequential and len(child) > 1]
    if not names:
        names = [name for name, child in model.named_children() if any(True for _ in child.children())]
    seen: dict[str, Any] = {}
    hooks = [
        converted.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: seen.setdefault(name, copy.deepcopy(output))
        )
        for name in names
    ]
    call(converted, x)
    for hook in hooks:
        hook.remove()
    features = call(create_feature_extractor(converted, [name for name in names if name in seen]), x)
    return {name: (features[name], seen[name]) for name in features}


def replicate(model: nn.Module, x: Tensor, convert: Any) -> dict[str, Pair]:
    """What `nn.DataParallel` runs on each device: shallow copies of all modules with weights of their own."""
    converted = convert(model)
    expected = call(other_weights(copy.deepcopy(converted)), x)
    before = call(converted, x)
    replicas = {id(module): module._replicate_for_data_parallel() for module in converted.modules()}
    other = other_weights(copy.deepcopy(converted))
    for module, source in zip(converted.modules(), other.modules(), strict=True):
        replica = replicas[id(module)]
        for name, child in module._modules.items():
            if child is not None:
                setattr(replica, name, replicas[id(child)])
        for name, tensor in source._parameters.items():
            if tensor is None:
                replica._parameters[name] = None
            else:
                setattr(replica, name, tensor.detach())
        for name, tensor in source._buffers.items():
            if tensor is None:
                replica._buffers[name] = None
            else:
                setattr(replica, name, tensor)
    output = call(replicas[id(converted)], x)
    return {"replica": (output, expected), "original": (call(converted, x), before)}


def gradients(model: nn.Module, x: Tensor, run: Callable[[Tensor], Any]) -> list[Tensor]:
    """The gradients of all parameters, of the sum of what the model returns, squared."""
    model.zero_grad()
    found = [one for one in leaves(run(x.clone().requires_grad_()))[0] if one.requires_grad]
    torch.stack([one.square().mean() for one in found]).sum().backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


INNER = ("_forward_impl", "forward_features", "_predict_once", "_forward", "forward_stem")


def checkpointing(model: nn.Module, x: Tensor, convert: Any, *, reentrant: bool) -> dict[str, Pair]:
    """Gradients with recomputed activations: of the whole, of a method in the network's forward, and timm's own."""
    converted: Any = convert(model)
    converted.requires_grad_(True)
    expected = gradients(converted, x, converted)
    pairs = {}

    def whole(x: Tensor) -> Any:
        outputs: list[Any] = []

        def run(x: Tensor) -> Any:
            found, form = leaves(converted(x))
            outputs.append(form)
            return tuple(found)

        return checkpoint(run, x, use_reentrant=reentrant)

    pairs["whole"] = (gradients(converted, x, whole), expected)
    for name in INNER:
        if hasattr(converted, name):
            inner = getattr(converted, name)
            setattr(converted, name, partial(checkpoint, inner, use_reentrant=reentrant))
            pairs[name] = (gradients(converted, x, converted), expected)
            delattr(converted, name)
    if hasattr(converted, "set_grad_checkpointing") and not reentrant:
        converted.set_grad_checkpointing(True)
        pairs["set_grad_checkpointing"] = (gradients(converted, x, converted), expected)
    return pairs


def low_rank(model: nn.Module) -> Any:
    """LoRA on the convolutions, with weights that matter."""
    from peft import LoraConfig, get_peft_model

    names = [name for name, one in model.named_modules() if isinstance(one, nn.Conv2d) and one.groups == 1]
    wrapped = get_peft_model(model, LoraConfig(target_modules=names, r=4)).eval()
    generator = torch.Generator().manual_seed(4)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return wrapped


def lora_before(model: nn.Module, x: Tensor, convert: Any) -> dict[str, Pair]:
    """Conversion of a network that has LoRA on its convolutions."""
    torch.manual_seed(5)
    wrapped = low_rank(model)
    merged = copy.deepcopy(wrapped).merge_and_unload().eval()
    return {"output": (call(convert(wrapped), x), call(convert(merged), x))}


def lora_after(model: nn.Module, x: Tensor, convert: Any) -> dict[str, Pair]:
    """LoRA on the convolutions of a converted network."""
    converted = convert(model)
    torch.manual_seed(5)
    merged = low_rank(copy.deepcopy(model)).merge_and_unload().eval()
    torch.manual_seed(5)
    wrapped = low_rank(copy.deepcopy(converted))
    expected = copy.deepcopy(converted)
    expected.load_state_dict(merged.state_dict(), strict=True)
    pairs = {"output": (call(wrapped, x), call(expected, x))}
    return pairs | {"merged": (call(wrapped.merge_and_unload().eval(), x), call(expected, x))}


def compiled(model: nn.Module, x: Tensor, convert: Any) -> dict[str, Pair]:
    """`torch.compile` without a break in the graph."""
    converted = convert(model)
    torch._dynamo.reset()
    return {"output": (call(torch.compile(converted, backend="eager", fullgraph=True), x), call(converted, x))}


def traced(model: nn.Module, x: Tensor, convert: Any) -> dict[str, Pair]:
    """`torch.jit.trace` as the first call of a converted network."""
    converted = convert(model)
    graph = torch.jit.trace(converted, x, strict=False, check_trace=False)
    larger = torch.cat([x, x.flip(3)], 3)
    pairs = {"output": (call(graph, x), call(converted, x))}
    if len(leaves(call(converted, x))[0]) > 1:
        return pairs
    try:
        call(model, x)  # as conversion does: some networks keep what belongs to the size that they saw first
        call(torch.jit.trace(model, x, strict=False, check_trace=False), larger)
    except (RuntimeError, AssertionError):
        return pairs  # it takes one size only
    return pairs | {"another size": (call(graph, larger), call(converted, larger))}


def pruned(model: nn.Module, x: Tensor, convert: Any) -> dict[str, Pair]:
    """A third of the weights of every convolution set to zero."""
    from torch.nn.utils import prune

    def cut(one: nn.Module, finish: bool) -> nn.Module:
        for module in one.modules():
            if type(module) is nn.Conv2d:
                prune.l1_unstructured(module, "weight", 0.3)
                if finish:
                    prune.remove(module, "weight")
        return one

    converted = convert(model)
    state = cut(copy.deepcopy(model), finish=True).state_dict()
    expected = copy.deepcopy(converted)
    expected.load_state_dict({key: state[key] for key in expected.state_dict()}, strict=True)
    return {"output": (call(cut(converted, finish=False), x), call(expected, x))}


def averaged(model: nn.Module, x: Tensor, convert: Any, *, swa: bool) -> dict[str, Pair]:
    """An average of weights that follows the network at once."""
    from timm.utils import ModelEmaV3
    from torch.optim.swa_utils import AveragedModel

    converted = convert(model)
    average: Any
    if swa:
        average = AveragedModel(converted, avg_fn=lambda mean, new, count: new, use_buffers=True)
        average.update_parameters(converted)
        average.update_parameters(other_weights(converted))
    else:
        average = ModelEmaV3(converted, decay=0.0, foreach=False)
        average.update(other_weights(converted))
    return {"output": (call(average.module.eval(), x), call(converted, x))}


def deep_copied(model: nn.Module, x: Tensor, convert: Any) -> dict[str, Pair]:
    """A copy of a copy, that keeps its weights while the original's change."""
    converted = convert(model)
    expected = call(converted, x)
    copied = copy.deepcopy(copy.deepcopy(converted))
    other_weights(converted)
    return {"output": (call(copied, x), expected)}


def pickled(model: nn.Module, x: Tensor, convert: Any) -> dict[str, Pair]:
    """`torch.save` and `torch.load` of the whole network."""
    converted = convert(model)
    expected = call(converted, x)
    file = io.BytesIO()
    torch.save(converted, file)
    file.seek(0)
    return {"output": (call(torch.load(file, weights_only=False), x), expected)}


def symbolically(model: nn.Module) -> nn.Module:
    """`torch.fx.symbolic_trace`."""
    return torch.fx.symbolic_trace(model)


TOOLS = [
    Tool("convert_sync_batchnorm", after(sync_batchnorm)),
    Tool("timm freeze_batch_norm_2d", after(freeze)),
    Tool("timm reparameterize_model", after(reparameterize)),
    Tool("its own fuse()", after(own_fuse), quantizable=True),
    Tool("fuse_modules", fuse_modules),
    Tool("eager static quantisation", eager_quantization, ("quantised",), quantizable=True),
    Tool("eager QAT", partial(eager_quantization, training=True), ("quantised",), quantizable=True),
    Tool("FX static quantisation", fx_quantization, ("quantised",)),
    Tool("FX QAT", partial(fx_quantization, training=True), ("quantised",)),
    Tool("fx.symbolic_trace", after(symbolically)),
    Tool("create_feature_extractor", feature_extractor),
    Tool("DataParallel's replica", replicate),
    Tool("checkpoint, reentrant", partial(checkpointing, reentrant=True)),
    Tool("checkpoint, not reentrant", partial(checkpointing, reentrant=False)),
    Tool("peft LoRA, then antialias", lora_before),
    Tool("antialias, then peft LoRA", lora_after),
    Tool("torch.compile", compiled),
    Tool("torch.jit.trace", traced),
    Tool("prune", pruned),
    Tool("timm ModelEmaV3", partial(averaged, swa=False)),
    Tool("swa_utils.AveragedModel", partial(averaged, swa=True)),
    Tool("deepcopy", deep_copied),
    Tool("torch.save and load", pickled),
]


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings and no prints of other libraries."""
    with warnings.catch_warnings(action="ignore"), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


def differences(tool: Tool, name: str, x: Tensor, convert: Callable[[nn.Module], nn.Module]) -> dict[str, float]:
    """The relative differences of all pairs."""
    with quiet():
        pairs = tool.use(build(name, tool.quantizable), x, convert)
        return {label: difference(*pair) for label, pair in pairs.items()}


def judge(name: str, tool: Tool) -> dict[str, Any]:
    """What the tool does to one network: a verdict, and what it rests on."""
    pixels = NETWORKS[name]
    torch.manual_seed(1)
    x = torch.rand(2, 3, pixels, pixels)
    try:
        plain = differences(tool, name, x, lambda model: model)
    except Exception as error:  # every library fails in its own way
        return {"verdict": APART, "words": said(error)}
    if broken := [label for label, value in plain.items() if not value < (1 if label in tool.lossy else 0.01)]:
        return {"verdict": APART, "words": f"the plain network differs by {plain[broken[0]]:.2g} ({broken[0]})"}
    if failed := fails_to_convert(name, pixels):
        return {"verdict": ERROR, "words": f"antialias itself: {failed}"}
    try:
        ours = differences(tool, name, x, partial(antialias, example_input=x))
    except (InputError, InputTypeError) as error:
        return {"verdict": REFUSED if "\n" not in str(error) else ERROR, "words": said(error)}
    except Exception as error:
        return {"verdict": ERROR, "words": said(error)}
    allowed = {
        label: 2 * value + 0.02 if label in tool.lossy else max(4 * value, 1e-4) for label, value in plain.items()
    }
    changed = [label for label, value in ours.items() if not value <= allowed.get(label, 1e-4)]
    words = ", ".join(f"{label} differs by {ours[label]:.2g} (plain: {plain.get(label, 0):.1g})" for label in changed)
    return {"verdict": CHANGED if changed else SAME, "words": words, "plain": plain, "ours": ours}


@lru_cache(maxsize=1)
def fails_to_convert(name: str, pixels: int) -> str:
    """What `antialias` says where it cannot convert the network at all."""
    try:
        with quiet():
            antialias(build(name), torch.rand(2, 3, pixels, pixels))
    except Exception as error:
        return said(error)
    return ""


def said(error: BaseException) -> str:
    """The error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def read() -> list[dict[str, Any]]:
    """The results so far."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def sweep(names: list[str], wanted: list[str]) -> None:
    """Judge all pairs that have no result yet."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    done = {(line["network"], line["tool"]) for line in read()}
    for name in names:
        for tool in TOOLS:
            if (name, tool.name) in done or (wanted and tool.name not in wanted):
                continue
            started = time.perf_counter()
            result = {"network": name, "tool": tool.name, **judge(name, tool)}
            result["seconds"] = round(time.perf_counter() - started, 1)
            with RESULTS.open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(name, "|", tool.name, "|", result["verdict"], result["words"], result["seconds"], flush=True)


def matrix(lines: list[dict[str, Any]]) -> str:
    """Networks by tools, in Markdown."""
    verdicts = {(line["network"], line["tool"]): line["verdict"] for line in lines}
    names = [name for name in NETWORKS if any(line["network"] == name for line in lines)]
    rows: list[Row] = [
        {"tool": tool.name} | {name: verdicts.get((name, tool.name), "") for name in names} for tool in TOOLS
    ]
    return as_markdown(rows)


def summary(lines: list[dict[str, Any]]) -> str:
    """What the matrix says, and what its words mean."""
    times = {verdict: sum(line["verdict"] == verdict for line in lines) for verdict in LEGEND}
    counts = [f"| {verdict} | {times[verdict]} | {meaning} |" for verdict, meaning in LEGEND.items()]
    return "\n".join(["| verdict | times | meaning |", "| --- | ---: | --- |", *counts])


def words(lines: list[dict[str, Any]]) -> str:
    """The refusals and what went wrong, each line once."""
    said: dict[tuple[str, str, str], list[str]] = {}
    for line in lines:
        if line["verdict"] in (REFUSED, CHANGED, ERROR):
            key = (line["tool"], line["verdict"], line["words"].replace("|", "\\|"))
            said.setdefault(key, []).append(line["network"])
    rows: list[Row] = [
        {"tool": tool, "verdict": verdict, "networks": ", ".join(names), "words": text}
        for (tool, verdict, text), names in said.items()
    ]
    return as_markdown(rows) if rows else "None."


def write_tables() -> None:
    """Replace the tables between their marks in the page."""
    order = [tool.name for tool in TOOLS]
    lines = sorted(read(), key=lambda line: (order.index(line["tool"]), list(NETWORKS).index(line["network"])))
    for name, content in (("summary", summary(lines)), ("matrix", matrix(lines)), ("words", words(lines))):
        replace_section(PAGE, f"benchmarks/tools.py, {name}", content)
    print(summary(lines))


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("sweep", "tables"))
    parser.add_argument("names", nargs="*", help="networks, such as timm:resnet18; default: all")
    parser.add_argument("--tools", nargs="*", default=[], help="tools by their name in the table; default: all")
    arguments = parser.parse_args()
    if arguments.what == "tables":
        write_tables()
    else:
        sweep(arguments.names or list(NETWORKS), arguments.tools)


if __name__ == "__main__":
    sys.exit(main())
