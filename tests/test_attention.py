"""The attention head of chapter 04 on maps in which no position stands out, on odd sizes and in half precision."""
import itertools

import pytest
import torch
from chapters import functions_of

from apse_nb.attention import AttentionHead, attention_loss, normalize_map, spatial_weights
from apse_nb.emotions import MIKELS

naive_head = functions_of("04_attention", "naive_Z", "naive_class_maps", "naive_scores", "naive_U",
                          "naive_head").naive_head
SWITCHES = list(itertools.product(("mean", "sum"), (True, False), ("minmax", "relu_l1", "softmax")))


@pytest.mark.parametrize("norm, uniform", [("minmax", 1), ("relu_l1", 1/6), ("softmax", 1/6)])
def test_where_no_position_stands_out_all_count_alike(norm, uniform):
    constant, single = torch.full((1, 1, 2, 3), .3), torch.tensor([[[[-7.]]]])
    negative = -torch.rand(1, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    for maps in (constant, negative, single):
        maps = maps.clone().requires_grad_()
        result = normalize_map(maps, norm)
        result.square().sum().backward()
        assert 0 <= result.min() and result.max() <= 1 and maps.grad.isfinite().all()
    assert torch.allclose(normalize_map(constant, norm), torch.tensor(uniform, dtype=torch.float32))
    assert torch.allclose(normalize_map(single, norm), torch.ones(1))


@pytest.mark.parametrize("shape, classes", [((2, 5, 1, 1), 3), ((1, 4, 2, 3), 1), ((1, 4, 2, 3), 2)])
def test_one_position_one_class_and_features_of_zero(shape, classes):
    g = torch.Generator().manual_seed(4)
    features = (torch.zeros if classes == 2 else torch.ones)(shape, dtype=torch.float64)
    features = features*torch.rand(shape, dtype=torch.float64, generator=g)
    for spatial, rescale, norm in SWITCHES:
        head = AttentionHead(shape[1], classes, spatial, rescale, norm).double()
        for one, *found in zip(features, *head(features)):
            wanted = naive_head(one, head.classify.weight[:, :, 0, 0], head.classify.bias, spatial, rescale, norm)
            for a, b in zip(wanted, found):
                torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_half_precision_keeps_the_small_tensors_in_float32():
    features = torch.rand(4, 64, 12, 12, generator=torch.Generator().manual_seed(0))
    half = features.bfloat16()
    torch.testing.assert_close(spatial_weights(half, "sum"), spatial_weights(half.float(), "sum"))
    head = AttentionHead(64, 4)
    with torch.autocast("cpu", torch.bfloat16):
        low = head(half)
    assert low.attended.dtype == torch.bfloat16
    assert {t.dtype for t in (low.scores, low.class_maps, low.attention)} == {torch.float32}
    torch.testing.assert_close(low.scores, head(features).scores, rtol=0, atol=.02)


def test_wrong_switches_shapes_and_labels_are_one_sentence():
    features, z = torch.rand(2, 64, 4, 4), torch.tensor([0, 5])
    low, high = AttentionHead(64, 2)(features), AttentionHead(64, 8)(features)
    for attempt, words in (
            (lambda: AttentionHead(64, 4, spatial="max")(features), "spatial must be 'mean' or 'sum'"),
            (lambda: AttentionHead(64, 4)(features[:, :32]), "reads B x 64 x h x w"),
            (lambda: AttentionHead(64, 0), "at least one class"),
            (lambda: attention_loss(None, None, z, MIKELS), "at least one head"),
            (lambda: attention_loss(high, low, z, MIKELS), "need scores of shape 2 x 2, not 2 x 8"),
            (lambda: attention_loss(low, high, z, MIKELS, reduction="max"), "'sum' or 'mean'")):
        with pytest.raises(ValueError, match=words):
            attempt()
