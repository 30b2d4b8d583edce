import json
from pathlib import Path

import numpy as np

from dealias.demo import _typical_images, run_demo


def test_the_quick_demo_shows_the_paper_s_effect(tmp_path: Path):
    done: list[float] = []
    results = run_demo(tmp_path / "demo", quick=True, on_progress=lambda stage, fraction: done.append(fraction))
    assert done == sorted(done)
    assert done[-1] == 1.0
    assert json.loads((tmp_path / "demo" / "results.json").read_text()) == results

    before, after = results["baseline"], results["antialiased"]
    assert after["circular_consistency"] > 0.95
    assert before["circular_consistency_interval"][1] < after["circular_consistency_interval"][0]
    assert after["zero_fill_consistency"] > before["zero_fill_consistency"]
    assert min(before["accuracy"], after["accuracy"]) > 0.95
    distances = [
        (before["feature_distance"][key], after["feature_distance"][key]) for key in before["feature_distance"]
    ]
    assert len(distances) == 10
    assert all(ours < theirs for theirs, ours in distances[1:])
    # nothing subsamples before the first pool: its maximum is exactly shift-equivariant
    assert max(distances[0]) < 1e-6

    for photo in results["photos"]:
        assert photo["shifts"] == list(range(33))
        assert len(photo["probabilities"]) == 33
    assert {photo["label"] for photo in results["photos"]} == {"espresso", "missile"}
    page = (tmp_path / "demo" / "report.html").read_text()
    assert results["finding"] in page


def test_typical_images_span_the_variation():
    steps = np.arange(100)[::-1, None] / 100
    curves = np.concatenate([np.zeros((100, 1)), steps, np.zeros((100, 1))], axis=1)
    np.testing.assert_array_equal(_typical_images(curves), [99, 79, 59, 40, 20, 0])
