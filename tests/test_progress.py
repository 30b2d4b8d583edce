from dealias.progress import Stages


def test_fractions_follow_the_weights_and_end_at_one():
    seen: list[tuple[str, float]] = []
    stages = Stages({"a": 1, "b": 2, "c": 1}, lambda stage, done: seen.append((stage, done)))
    for stage in ("a", "b", "c"):
        advance = stages.start(stage)
        for step in range(1, 5):
            advance(step, 4)
    done = [fraction for _, fraction in seen]
    assert done == sorted(done)
    assert seen[0] == ("a", 0.0)
    assert ("b", 0.25) in seen
    assert ("b", 0.5) in seen
    assert seen[-1] == ("c", 1.0)
