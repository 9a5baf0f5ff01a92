"""Images and text of an episode."""

import numpy as np
import pytest

from .conftest import MakeEnv


@pytest.mark.parametrize("steps", [0, 6])
def test_image(make_env: MakeEnv, steps: int) -> None:
    env = make_env(render_mode="rgb_array")
    env.reset(seed=0)
    for _ in range(steps):
        env.step([9, 1])
    image = env.render()
    assert image.dtype == np.uint8
    assert image.shape == (900, 1200, 3)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20, "more than an empty canvas"


def test_text(make_env: MakeEnv) -> None:
    env = make_env(render_mode="ansi")
    env.reset(seed=0)
    for _ in range(6):
        env.step([9, 2])
    text = env.render()
    rows = {line[:12].strip(): line for line in text.splitlines()}
    assert {"clock", "size", "batch", "KV", "queue", "power", "projected"} <= set(rows)
    assert f"{env.grid.clocks_mhz[9]} MHz" in rows["clock"]
    assert "energy" in text
    assert "t = 6.0 s" in text


def test_projections_are_for_the_sample_they_are_drawn_at(make_env: MakeEnv) -> None:
    env = make_env(render_mode="ansi", length_predictor="oracle")
    env.reset(seed=0)
    for _ in range(8):
        env.step([15, 2])
    assert env._renderer is not None
    line = env._renderer._recorder.timeline
    assert [int(t) for t in line.time_s] == list(range(13)), "one sample per second, run-in included"
    actual, projected = line.column("batch")[2:], line.column("projected_batch")[2:]
    gone = actual[:-1] - projected[1:]
    assert (gone >= 0).all(), "made a second before, it knows nobody who was not on board then"
    assert gone.mean() < 6, "and leaves out those who complete within the second"


def test_rendering_changes_nothing(make_env: MakeEnv) -> None:
    plain, shown = make_env(), make_env(render_mode="ansi")
    plain.reset(seed=0)
    shown.reset(seed=0)
    for _ in range(3):
        one, other = plain.step([4, 1]), shown.step([4, 1])
        shown.render()
        np.testing.assert_array_equal(one[0], other[0])
        assert one[1] == other[1]


def test_no_mode_no_picture(make_env: MakeEnv) -> None:
    env = make_env()
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode"):
        assert env.render() is None
