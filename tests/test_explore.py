"""What chapter 12's functions promise, without a browser."""
import numpy as np
import pytest
import torch
from torch import nn

from apse_nb.emotions import MIKELS
from apse_nb.explore import as_variant, grad_cam, look_at, peak, place_words
from apse_nb.network import APSE
from apse_nb.scenes import make_scenes


@pytest.fixture(scope="module")
def seen():
    torch.manual_seed(0)
    return APSE(MIKELS, backbone="scene_net", weights="shapes", dim=16).eval(), make_scenes(2, size=64, seed=3).pixels


def test_places_in_words():
    corner = np.eye(6)[:, :1]*np.eye(6)[:1]                                       # one bright cell in the upper left
    assert place_words(peak(corner)) == "at the upper left" and place_words(peak(corner[::-1])) == "at the lower left"
    assert place_words((.5, .5)) == "in the centre" and place_words((.9, .5)) == "at the right"
    assert peak(np.ones((6, 6))) is None and place_words(None) == "nowhere in particular"


def test_a_network_without_heads_is_refused(seen):
    with pytest.raises(ValueError, match="no attention head"):
        look_at(nn.Linear(2, 2), seen[1][0], 56)


def test_grad_cam_leaves_the_network_as_it_was(seen):
    pytest.importorskip("pytorch_grad_cam")
    model, (one, two) = seen
    views = [look_at(model, image, 56) for image in (one, two)]
    cam = grad_cam(model, one, views[1].embedding, 56)
    assert cam.shape == (56, 56) and cam.min() >= 0 and cam.max() <= 1
    assert not grad_cam(model, one, views[0].embedding, 56).any()                 # no slope at the top of the hill
    assert all(p.grad is None for p in model.parameters()) and not model.training


def test_a_variant_ends_with_its_block(seen):
    model, image = seen[0], seen[1][0]
    before = look_at(model, image, 56).heads[1].attention
    with pytest.raises(RuntimeError, match="in between"), as_variant(model, spatial="sum", norm="softmax"):
        assert not np.allclose(look_at(model, image, 56).heads[1].attention, before)
        raise RuntimeError("in between")
    assert np.array_equal(look_at(model, image, 56).heads[1].attention, before)
    with pytest.raises(ValueError, match="norm must be 'minmax', 'relu_l1' or 'softmax'"), as_variant(model, norm="l2"):
        pass
