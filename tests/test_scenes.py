"""Drawn scenes are what chapter 01 says: true masks, the same bytes from the same seed, one knob at a time."""
import sys

import numpy as np
import pytest

from apse_nb.emotions import MIKELS
from apse_nb.scenes import LAYERS, Difficulty, make_scenes, make_shapes, paint, plan_scene

SEVERAL = 2 if sys.platform == "linux" else 1


def test_nothing_but_the_mask_changes_with_the_motif():
    rng = np.random.default_rng(1)
    for label in range(8):
        plan = plan_scene(label, rng, Difficulty(neighbour_motif=1.))
        image, mask = paint(plan, 96)
        without = paint(plan, 96, LAYERS[:-1])[0]
        change = np.abs(image.astype(int) - without).sum(-1)
        assert (change[mask] > 6).mean() > .9, MIKELS.fine[label]
        soft_edge = sum(np.roll(mask, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)) > 0
        assert not change[~soft_edge].any()


def test_a_scene_depends_on_seed_and_number_only():
    one, two = make_scenes(70, 48, seed=5, workers=1), make_scenes(70, 48, seed=5, workers=SEVERAL)
    for name in ("pixels", "masks", "labels", "motifs", "distributions"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    assert one.fingerprint() == two.fingerprint()
    assert one.fingerprint() != make_scenes(70, 48, seed=6, workers=1).fingerprint()
    assert np.array_equal(make_scenes(16, 48, seed=5, workers=1).pixels, one.pixels[:16])
    assert set(make_scenes(16, 32, workers=1).counts().values()) == {2}
    assert one.subset([9, 2]).motifs.tolist() == one.motifs[[9, 2]].tolist()
    assert one.subset(one.labels == 3).distributions.shape == (9, 8)
    assert np.allclose(one.distributions.sum(1), 1) and (one.distributions.argmax(1) == one.motifs).all()


def test_a_knob_moves_nothing_else():
    none, twelve = (plan_scene(1, np.random.default_rng(21), Difficulty(distractors=d)) for d in (0, 12))
    assert np.array_equal(paint(none, 96)[1], paint(twelve, 96)[1])
    assert np.array_equal(none.motif.colours, twelve.motif.colours)
    assert np.array_equal(none.distribution, twelve.distribution)


def test_shapes_are_balanced_and_repeatable():
    a, b = make_shapes(40, 32, seed=2, workers=1), make_shapes(40, 32, seed=2, workers=SEVERAL)
    assert all(np.array_equal(p, q) for p, q in zip(a, b)) and np.bincount(a[1]).tolist() == [4]*10


def test_a_quarter_of_the_neighbours_lies_across_the_polarities():
    near = MIKELS.wheel_distance() == 1
    assert (near & ~MIKELS.same_coarse.numpy()).sum() == near.sum()/4 == 4


@pytest.mark.parametrize("n, size, seed", [(0, 96, 0), (8, 4, 0), (8, 96, -1)])
def test_what_cannot_be_drawn(n, size, seed):
    with pytest.raises(ValueError, match="at least 1 image of at least 16 pixels"):
        make_scenes(n, size, seed)


def test_any_part_of_the_scenes_can_be_taken_also_none():
    scenes = make_scenes(4, size=16, workers=1)
    none, three = scenes.subset([]), scenes.subset([True, False, True, True])
    assert len(none) == len(none.motifs) == 0 and none.distributions.shape == (0, 8)
    assert three.motifs.tolist() == scenes.motifs[[0, 2, 3]].tolist() and three.names == [scenes.names[i]
                                                                                         for i in (0, 2, 3)]
