"""`evaluate`: plan the work, count unit by unit, keep every count, then summarise."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dealias.data import open_source
from dealias.data.classes import match_classes
from dealias.errors import as_int
from dealias.evaluation.network import Network, build_network
from dealias.evaluation.plan import EvaluationPlan, plan_evaluation
from dealias.evaluation.results import RESULTS, SLIDES, TABLE, TIMING, summarise, write_results
from dealias.evaluation.slides import make_slides
from dealias.evaluation.store import COUNTS, SETTINGS, Record, RunStore
from dealias.evaluation.tasks import choose_metrics
from dealias.evaluation.tasks.base import Request
from dealias.evaluation.tasks.sequences import read_rates
from dealias.evaluation.units import Unit, count_unit, load_units
from dealias.files import OutputFolder
from dealias.metrics.outputs import check_task
from dealias.models import ModelSpec
from dealias.models.spec import inputs_of, label_models
from dealias.progress import OnProgress
from dealias.runtime import broadcast, default_workers, gather, pick_device, process_group

FILES = (SETTINGS, COUNTS, RESULTS, TABLE, SLIDES, TIMING, "report.html")
"""Everything that an evaluation writes."""


def evaluate(
    models: Sequence[ModelSpec | str],
    images: str | Path,
    output: str | Path,
    *,
    task: str = "classes",
    metrics: Sequence[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    workers: int | None = None,
    device: str = "auto",
    resume: bool = False,
    image_size: int | None = None,
    crop_size: int | None = None,
    difficulty: int = 1,
    imagenet_c: str | Path | None = None,
    imagenet_p: str | Path | None = None,
    imagenet_p_rates: str | Path | None = None,
    on_progress: OnProgress = lambda stage, done: None,
    command: str = "evaluate",
) -> dict[str, Any]:
    """Measure networks side by side on labelled images; write `results.json` and `results.csv`.

    `dealias.report.evaluation.write_report` makes the page `report.html` of them.

    Every unit of work, some images of one task, is kept in `counts.jsonl` as soon as it is counted. Units, their
    random draws and their forward passes depend on the arguments alone: not on the number of workers, on what was
    counted before an interruption, or, under torchrun, on the number of processes.

    Args:
        models: the networks, the baseline first: names as for `dealias.models.create_model`, "NAME,KEY=VALUE,..." as
            for `ModelSpec.parse`, or specs.
        images: as for `dealias.data.open_source`.
        output: the folder to write into; it is created.
        task: what the networks return: one of `dealias.metrics.outputs.TASKS`, or "auto" to find out, as
            `dealias.metrics.outputs.recognise` does.
        metrics: names of `dealias.evaluation.METRICS`, or "all"; by default `dealias.evaluation.DEFAULT_METRICS` of
            classifiers, and stability and equivariance of other networks.
        limit: use at most so many images, drawn from all of them by `seed`.
        seed: of the images, shifts and perturbations drawn.
        batch_size: of a forward pass, at most; None takes 32 on a CPU, elsewhere 256, halved until it fits.
        workers: processes that read and perturb images; None takes one for each core but one.
        device: as in PyTorch; "auto" takes a GPU where there is one.
        resume: continue a run in `output` that was interrupted.
        image_size, crop_size: other sizes than those of `dealias.models.preprocessing_for`.
        difficulty: of ImageNet-P: 1, 2 or 3.
        imagenet_c, imagenet_p: folders of the released data sets, read in place of making perturbations.
        imagenet_p_rates: CSV file (perturbation,flip_rate,t5d) of the network by whose rates mFR and mT5D divide.
        on_progress: told the stage and the fraction of the work done.
        command: of dealias, whose folder `output` is.

    Returns:
        The content of `results.json`; in the other processes of torchrun an empty dict.

    Raises:
        InputError: an argument is out of range, or the folder has a run already, or one with other settings.
        MissingExtraError: a package is not installed.
    """
    for name, value, minimum in (("batch_size", batch_size, 1), ("workers", workers, 0), ("seed", seed, 0)):
        if value is not None:
            as_int(name, value, minimum)
    known_task = check_task(task)
    choose_metrics(metrics, known_task)  # refuses now what the plan would refuse later
    rates = None if imagenet_p_rates is None else read_rates(imagenet_p_rates)
    specs = label_models(models)
    inputs = {"imagenet_p_rates": imagenet_p_rates, **inputs_of(specs)}
    folder = OutputFolder(output, command, writes=FILES, inputs=inputs)
    source = open_source(images, limit=limit, seed=seed)
    place = pick_device(device)
    size = batch_size or (32 if place.type == "cpu" else 256)
    networks = [
        build_network(spec, place, size, image_size=image_size, crop_size=crop_size, seed=seed, task=known_task)
        for spec in specs
    ]
    for network in networks:
        network.labels = match_classes(source, network.classes)
    chosen = choose_metrics(metrics, networks[0].task)
    request = Request(source, chosen, seed, limit, difficulty, imagenet_c, imagenet_p, rates)
    plan = plan_evaluation(request, networks)
    with process_group() as (rank, processes), folder if rank == 0 else nullcontext():
        store = RunStore(folder, _settings(plan, networks), resume=resume) if rank == 0 else None
        done = broadcast({record.key for record in store.records()} if store else set(), processes)
        pending = [unit for unit in plan.units if unit.key not in done]
        reading = default_workers(processes) if workers is None else workers
        timing = _count_all(pending, networks, store, reading, rank, processes, on_progress)
        if store is None:
            return {}
        on_progress("writing the results", 0.97)
        records = store.records()
        results = summarise(records, plan, networks)
        write_results(folder, results, make_slides(records, plan, networks), timing)
        folder.own("report.html")
        on_progress("writing the results", 1.0)
        return results.as_json()


def _settings(plan: EvaluationPlan, networks: Sequence[Network]) -> dict[str, Any]:
    """The settings on which the counts depend."""
    request = plan.request
    released = [task.source for task in plan.tasks[0] if task.source.place != request.source.place]
    return {
        "models": [network.spec.identity() for network in networks],
        "labels": [network.spec.label for network in networks],
        "preprocessing": [asdict(network.preprocessing) for network in networks],
        "task": networks[0].task,
        "metrics": request.metrics,
        "images": request.source.fingerprint(),
        "count": len(request.source),
        "seed": request.seed,
        "difficulty": request.difficulty,
        "released": [source.fingerprint() for source in released],
    }


def _count_all(
    pending: Sequence[Unit],
    networks: Sequence[Network],
    store: RunStore | None,
    workers: int,
    rank: int,
    processes: int,
    on_progress: OnProgress,
) -> Mapping[str, float]:
    """Count this process's part of the units; after each, the first process keeps the records of all."""
    started = time.perf_counter()
    waited = 0.0
    units, rounds = pending[rank::processes], -(-len(pending) // processes)
    loaded = load_units(units, workers)
    for step in range(rounds):
        record: Record | None = None
        if step < len(units):
            before = time.perf_counter()
            found = next(loaded)
            waited += time.perf_counter() - before
            if found.skipped:
                units[step].task.source.check_exists()
            record = count_unit(units[step], found, networks)
        for each in gather(record, rank, processes):
            if each is not None and store is not None:
                store.append(each)
        on_progress(units[min(step, len(units) - 1)].task.name if units else "counting", 0.96 * (step + 1) / rounds)
    return {"seconds": time.perf_counter() - started, "waited_for_images": waited, "workers": workers}
