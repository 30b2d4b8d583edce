import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from dealias.demo import _typical_images, run_demo


@pytest.mark.sweep  # it takes a minute, and .ci/run runs the same demo
def test_the_quick_demo_shows_the_paper_s_effect(tmp_path: Path):
    done: list[float] = []
    results = run_demo(tmp_path / "demo", quick=True, on_progress=lambda stage, fraction: done.append(fraction))
    assert done == sorted(done)
    assert done[-1] == 1.0
    assert json.loads((tmp_path / "demo" / "results.json").read_text()) == json.loads(json.dumps(asdict(results)))

    before, after = results.metrics.values()
    assert after["circular_consistency"].value > 0.95
    assert before["circular_consistency"].interval[1] < after["circular_consistency"].interval[0]
    assert after["zero_fill_consistency"].value > before["zero_fill_consistency"].value
    assert min(before["accuracy"].value, after["accuracy"].value) > 0.95
    plain, blurred = results.feature_distance.values()
    distances = [(plain[pool][stage], blurred[pool][stage]) for pool in plain for stage in ("max", "subsampled")]
    assert len(distances) == 10
    assert all(ours < theirs for theirs, ours in distances[1:])
    # nothing subsamples before the first pool: its maximum is exactly shift-equivariant
    assert max(distances[0]) < 1e-6

    for photo in results.photos:
        assert photo["shifts"] == list(range(33))
        assert len(photo["probabilities"]) == 33
    assert {photo["label"] for photo in results.photos} == {"espresso", "missile"}
    page = (tmp_path / "demo" / "report.html").read_text()
    assert results.finding in page


def test_typical_images_span_the_variation():
    steps = np.arange(100)[::-1, None] / 100
    curves = np.concatenate([np.zeros((100, 1)), steps, np.zeros((100, 1))], axis=1)
    np.testing.assert_array_equal(_typical_images(curves), [99, 79, 59, 40, 20, 0])
