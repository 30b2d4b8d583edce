"""`dealias flicker`: how much what networks return changes from frame to frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dealias.cli import common
from dealias.cli.common import app, say, show_progress, show_table

if TYPE_CHECKING:
    from dealias.data import Source, Video
    from dealias.evaluation.clips import Clip
    from dealias.evaluation.flicker import Flicker
    from dealias.evaluation.network import Network
    from dealias.metrics.site_profile import Profile
    from dealias.models import ModelSpec
    from dealias.progress import OnProgress
    from dealias.repair import RepairOptions
    from dealias.repair.images import TrainingImages

PARTS = 5
"""A video is cut into this many equal parts: a repair learns from all of them but the last."""
MOST_FRAMES = 500
"""How many frames of a video a repair holds in memory at most, about 0.2 MB each."""


@app.command("flicker")
def flicker_of_networks(
    model: common.ConfiguredModel,
    video: Annotated[Path | None, typer.Option(help="A video file, any that FFmpeg reads.")] = None,
    photos: Annotated[
        str | None, typer.Option(help="Folder of photographs: a window slides over each, so the true motion is known.")
    ] = None,
    weights: common.Weights = None,
    new_head: common.NewHead = False,
    against: Annotated[
        str,
        typer.Option(help="What to show beside it: a filter for its anti-aliased copy, or another MODEL,KEY=VALUE,..."),
    ] = "bin4",
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Repair a copy, without labels, with four fifths of the photographs or video; all see the rest.",
        ),
    ] = False,
    epochs: Annotated[int, typer.Option(help="Of the repair.", min=1)] = 5,
    task: common.Task = "auto",
    least_score: Annotated[
        float | None,
        typer.Option(help="Leave out boxes with a lower score. Default: none; of raw outputs as their libraries do."),
    ] = None,
    frames: Annotated[int, typer.Option(help="Of the pan over each photograph.", min=2)] = 17,
    step: Annotated[
        float, typer.Option(help="Pixels that the window moves down and to the right in each frame.")
    ] = 1.0,
    start: Annotated[int, typer.Option(help="First frame of the video.", min=0)] = 0,
    stop: Annotated[int | None, typer.Option(help="The frame behind the last one of the video.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use at most this many photographs.", min=1)] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Short side to which frames of the video are resized; default: as they are.")
    ] = None,
    crop_size: common.CropSize = None,
    batch_size: Annotated[int, typer.Option(help="Frames in a forward pass.", min=1)] = 8,
    device: common.Device = "auto",
    seed: common.Seed = 0,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also measure which downsampling site adds most shift-variance.")
    ] = False,
    output: common.Output = Path("runs/flicker"),
    resume: common.Resume = False,
) -> None:
    """Show a video, or pans over photographs, to a network and its anti-aliased copy: how steady are their answers?"""
    _run(dict(locals()))


def _run(asked: Mapping[str, Any]) -> None:
    """Measure, and write the page; `asked` are the options of the command."""
    from dealias.errors import InputError
    from dealias.evaluation.flicker import FILES, measure_flicker
    from dealias.files import OutputFolder
    from dealias.models.spec import inputs_of
    from dealias.report.answers import draw_answer
    from dealias.report.flicker import PAGE, write_flicker_report

    video, photos, output = asked["video"], asked["photos"], asked["output"]
    if (video is None) == (photos is None):
        raise InputError("give either --video FILE or --photos FOLDER")
    if asked["repair"] and ":" in asked["against"]:
        raise InputError("--repair mends the anti-aliased copy: give a filter to --against")
    specs = _specs(asked["model"], asked["weights"], asked["new_head"], asked["against"])
    inputs = {"video": video, **inputs_of(specs)}
    folder = OutputFolder(output, "flicker", writes=(*FILES, PAGE), inputs=inputs)
    if folder.has_run and not asked["resume"]:
        raise InputError(f"output={str(output)!r} has a run: pass --resume to continue it, or name another folder")
    opened = _opened(asked)
    networks = _networks(specs, asked)
    left_out = ("output", "resume", "device", "batch_size", "profile")
    settings = {name: str(value) for name, value in asked.items() if name not in left_out}
    with show_progress() as on_progress, folder:
        remarks = list[str]()
        if asked["repair"]:
            repaired, opened, remarks = _repaired(networks, opened, asked, on_progress)
            networks.append(repaired)
        clips = _clips(opened, networks[0], asked)
        results = measure_flicker(networks, clips, folder, settings, draw=draw_answer, on_progress=on_progress)
        on_progress("writing the report", 0.96)
        if results.task in ("segmentation", "images") and photos is not None and asked["step"] % 1:
            remarks.append(
                "Fractions of a pixel were undone by interpolation, which blurs the sharpest edges a little."
            )
        profile = _profile(networks[0], clips[0]) if asked["profile"] else None
        write_flicker_report(folder, clips, profile, remarks)
    _print(results, output)


def _repaired(
    networks: Sequence[Network], opened: Video | Source, asked: Mapping[str, Any], on_progress: OnProgress
) -> tuple[Network, Video | Source, list[str]]:
    """The repaired copy, the part of the video or the photographs that it has not learned from, and remarks."""
    from dataclasses import replace

    from dealias.data import Video
    from dealias.filters import parse_filter
    from dealias.repair import RepairOptions
    from dealias.repair.from_folder import repair_network

    original, copy = networks
    options = RepairOptions(
        task=original.task, filter=parse_filter(asked["against"]), epochs=asked["epochs"], seed=asked["seed"]
    )
    images, held, shown = _split(opened, original, options)
    outcome = repair_network(
        original,
        images,
        asked["output"] / "repair",
        options.model_copy(update={"held_out": held}),
        resume=asked["resume"],
        on_progress=on_progress,
    )
    results = outcome.results
    kind, seen = ("frames", "come after those") if isinstance(opened, Video) else ("photographs", "are others")
    remarks = [
        f"The repaired copy learned, without labels, from {results['images']['trained_on']} {kind} to agree with the "
        f"original. The {kind} shown here {seen}.",
        *(f"The repair fell short: {reason}." for reason in results["reasons"]),
    ]
    network = replace(original, spec=replace(copy.spec, label="anti-aliased, repaired"), model=outcome.model)
    return network, shown, remarks


def _split(
    opened: Video | Source, network: Network, options: RepairOptions
) -> tuple[TrainingImages, list[int], Video | Source]:
    """The images of a repair, the numbers of those held out, and what is shown: a video's end, or other photographs."""
    from dataclasses import replace

    from dealias.data import Video
    from dealias.errors import InputError
    from dealias.repair.domain import draw_held_out, split_held_out
    from dealias.repair.images import read_frames, read_source

    if isinstance(opened, Video):
        if opened.length is None or opened.length < 2 * PARTS:
            raise InputError(
                f"--repair learns from the first {PARTS - 1} fifths of the video, and its length is "
                f"{opened.length or 'unknown'}: give --stop, or a longer video"
            )
        cut = opened.start + opened.length * (PARTS - 1) // PARTS
        images = read_frames(replace(opened, stop=cut), network.preprocessing, MOST_FRAMES, options.seed)
        return images, draw_held_out(images.scenes, 0.2, options.seed), replace(opened, start=cut)
    images = read_source(opened, network.preprocessing)
    held = split_held_out(images.pixels, options.held_out, options.seed)[1]
    return images, held, opened.subset([images.scenes[number] for number in held])


def _specs(model: str, weights: Path | None, new_head: bool, against: str) -> list[ModelSpec]:
    """The network, and its copy with a filter or another network."""
    from dealias.audit import audited_models
    from dealias.models import ModelSpec
    from dealias.models.spec import label_models

    spec, copy = audited_models(model, weights=weights, new_head=new_head, filter=against)
    return label_models([spec, ModelSpec.parse(against) if ":" in against else copy])


def _networks(specs: Sequence[ModelSpec], asked: Mapping[str, Any]) -> list[Network]:
    from dealias.evaluation.network import build_network
    from dealias.metrics.outputs import check_task
    from dealias.runtime import pick_device

    task, device = check_task(asked["task"]), pick_device(asked["device"])
    sizes = {"crop_size": asked["crop_size"], "seed": asked["seed"]}
    networks = [build_network(spec, device, asked["batch_size"], task=task, **sizes) for spec in specs]
    for network in networks:
        network.least_score = asked["least_score"]
    return networks


def _opened(asked: Mapping[str, Any]) -> Video | Source:
    """The video, or the photographs."""
    from dealias.data import Video
    from dealias.repair.images import ImageChoice, open_images

    if asked["video"] is not None:
        return Video(asked["video"], start=asked["start"], stop=asked["stop"], short_side=asked["image_size"])
    return open_images(ImageChoice(asked["photos"], asked["limit"]), asked["seed"])[0]


def _clips(opened: Video | Source, network: Network, asked: Mapping[str, Any]) -> list[Clip]:
    """The video, or a pan over each photograph."""
    from dealias.data import Video
    from dealias.evaluation.clips import PanClip, VideoClip

    if isinstance(opened, Video):
        return [VideoClip(opened, network.preprocessing.channels)]
    step = (asked["step"], asked["step"])
    return [PanClip(opened, number, network.preprocessing, asked["frames"], step) for number in range(len(opened))]


def _profile(network: Network, clip: Clip) -> Profile:
    """Of the network, on a frame of the clip."""
    from dealias.metrics.site_profile import profile_model

    pixels = next(iter(clip.shots())).pixels[None]
    return profile_model(network.model, network.see(pixels.to(network.device)))


def _print(results: Flicker, output: Path) -> None:
    from dealias.report.flicker import PAGE, flicker_finding, flicker_rows

    say(flicker_finding(results), style="bold")
    show_table(("", *results.networks), flicker_rows(results))
    if skipped := sum(len(clip["skipped"]) for clip in results.clips):
        say(f"{skipped} frames were skipped: see the report")
    say(output / PAGE)
