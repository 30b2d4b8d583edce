"""The app, the options that several commands take, and helpers of several commands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from dealias.errors import InputError, shown, users_code
from dealias.progress import OnProgress

if TYPE_CHECKING:
    from torch import Tensor, nn

app = typer.Typer(
    name="dealias",
    help="Make convolutional networks stable under small shifts: measure, fix, train, see.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfiguredModel = Annotated[
    str,
    typer.Argument(
        help="torchvision:NAME, timm:NAME, dealias:NAME or package.module:factory; or NAME,KEY=VALUE,... with "
        "num_classes, in_chans, padding_mode."
    ),
]
Weights = Annotated[Path | None, typer.Option(help="Checkpoint: safetensors or .pth.")]
NewHead = Annotated[
    bool, typer.Option("--new-head", help="Load a checkpoint with another number of classes without its head.")
]
Output = Annotated[Path, typer.Option(help="Folder to write into.")]
Limit = Annotated[int | None, typer.Option(help="Use at most this many images.", min=1)]
Seed = Annotated[int, typer.Option(help="Seed of every random draw.", min=0, max=2**63 - 1)]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps or auto.")]
Workers = Annotated[int | None, typer.Option(help="Processes that read images; default: one less than the cores.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run in the output folder.")]
Task = Annotated[
    str,
    typer.Option(
        help="What the network returns: classes, detection, segmentation, keypoints, embeddings, images, or auto."
    ),
]
ImageSize = Annotated[int | None, typer.Option(help="Size of the short side after resizing; default: the model's own.")]
CropSize = Annotated[
    int | None, typer.Option(help="Size of the square that the network sees; default: the model's own.")
]
FilterText = Annotated[str, typer.Option("--filter", help="Filter of the anti-aliased copy: name, length or taps.")]
Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL...",
        help="Networks, the baseline first: NAME or NAME,KEY=VALUE,... with weights=PATH, new_head=true, "
        "antialias=FILTER, label=TEXT, method, recipe, num_classes, in_chans, padding_mode.",
    ),
]
Stem = Annotated[bool, typer.Option("--stem", help="Anti-alias the first strided convolution too, which costs most.")]
Method = Annotated[str, typer.Option(help="blur; polyphase: anchors, with the blurs of the filter; or alias-free.")]
Recipe = Annotated[str, typer.Option(help="same-size, or zhang2019: the paper's released networks.")]
InputSize = Annotated[
    str | None,
    typer.Option(help="Size of the input: 224, or height,width, or channels,height,width. Default: the network's own."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

# Options of `train` and `finetune`. Those that are None leave the recipe's setting.
Data = Annotated[
    str | None,
    typer.Option(
        help="Class folders, WebDataset shards, a Hugging Face dataset on disk, or hf:NAME for a stream; with the "
        "subfolders train and val, or beside --val-data."
    ),
]
ValData = Annotated[
    str | None, typer.Option(help="Images to measure on; default: DATA/val, else a tenth of the images.")
]
RecipeFilter = Annotated[str | None, typer.Option("--filter", help="Of the anti-aliasing; default: bin4.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the images; default: the recipe's.", min=1)]
BatchSize = Annotated[
    int | None, typer.Option(help="Images in a step, over all processes; default: the recipe's.", min=1)
]
LearningRate = Annotated[float | None, typer.Option(help="Highest of the schedule; default: the recipe's.")]
ShiftAugmentation = Annotated[
    bool | None,
    typer.Option("--shift-augmentation/--no-shift-augmentation", help="Random crops or none; default: the recipe's."),
]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, any setting of the recipe; repeatable.")]
TrainingDevice = Annotated[str, typer.Option("--device", help="cpu, cuda, mps or auto.")]


def say(line: object, style: str = "", *, error: bool = False) -> None:
    """Print a line as it is, on stderr for an `error`: paths are not wrapped, and brackets are no markup."""
    Console(stderr=error, highlight=False).print(line, style=style, markup=False, soft_wrap=True)


def show_table(columns: Iterable[Column | str], rows: Iterable[Iterable[str]], **style: Any) -> None:
    """Print a table; `style` are the settings of `rich.table.Table`."""
    table = Table(*columns, **style)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


@contextmanager
def show_progress() -> Iterator[OnProgress]:
    """A progress bar on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description:<30}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", total=1.0)
        yield lambda stage, done: progress.update(task, description=stage, completed=done)


def network_and_example(
    model: str, weights: Path | None, new_head: bool, input_size: str | None
) -> tuple[nn.Module, Tensor]:
    """The network of a command's options, and an image of zeros of its own input size or of `input_size`."""
    import torch

    from dealias.models import create_model, default_input_size, parse_model

    name, settings = parse_model(model)
    network = create_model(name, weights=weights, new_head=new_head, **settings)
    channels, height, width = default_input_size(name, network)
    channels = settings.get("in_chans", channels)
    if input_size is not None:
        parts = [part.strip() for part in input_size.split(",")]
        if len(parts) > 3 or not all(part.isdecimal() and len(part) < 10 and int(part) > 0 for part in parts):
            raise InputError(
                f"input-size={shown(input_size)} is not a size: write 224, or 224,320, or 1,28,28 with the channels"
            )
        *more, height, width = [int(part) for part in parts] * (2 if len(parts) == 1 else 1)
        channels = more[0] if more else channels
    with users_code(f"input-size={shown(input_size)} does not fit into memory"):
        return network, torch.zeros(1, channels, height, width)
