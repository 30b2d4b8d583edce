"""Internal feature distance at the downsampling sites."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor

from dealias.evaluation.network import Network
from dealias.evaluation.store import COUNTS
from dealias.evaluation.tasks.base import Answers, Counts, Metric, Networks, Rates, Request, Summary, Task
from dealias.metrics.site_profile import Profile, profile_model
from dealias.models import Preprocessing
from dealias.models.inputs import Pixels
from dealias.records import from_json

MAPPED_IMAGES = 4


@dataclass(frozen=True)
class EquivarianceTask(Task):
    """Internal feature distance at the downsampling sites: of few images, all of them at once."""

    METRICS: ClassVar[Mapping[str, Metric]] = {
        "equivariance": Metric("internal feature distance at the downsampling sites", default=True)
    }
    networks: ClassVar[Networks] = "all"

    @classmethod
    def plan(cls, request: Request, preprocessing: Preprocessing) -> Iterator[Task]:
        """One task with one unit."""
        if "equivariance" in request.metrics:
            few = request.source.limited(MAPPED_IMAGES, request.seed)
            yield cls("equivariance", few, request.seed, images_per_unit=MAPPED_IMAGES)

    def views(self, picture: Any, position: int, preprocessing: Preprocessing) -> Pixels:
        """The centre."""
        return preprocessing.centre(preprocessing.square(picture, preprocessing.image_size))[None]

    def count(self, views: Tensor, network: Network, targets: Tensor | None, positions: Sequence[int]) -> Counts:
        """`profile`: the fields of `dealias.metrics.site_profile.Profile`."""
        images = network.see(views[:, 0].to(network.device))
        return {"profile": asdict(profile_model(network.model, images, batch_size=network.batch_size))}

    @classmethod
    def summarise(cls, tasks: Sequence[Any], answers: Answers, rates: Rates | None) -> Summary:
        """The profile of the network."""
        found = [counts["profile"] for task in tasks for _, counts in answers.of(task)]
        return Summary({}, {"profiles": from_json(Profile, json.dumps(found[0]).encode(), COUNTS)} if found else {})
