"""The contract of chapter 06: what every row of the tables hands on, for images of any size."""
import pytest
import torch

from apse_nb.attention import attention_loss
from apse_nb.emotions import MIKELS
from apse_nb.network import ABLATION, COMBINATIONS, APSE, network_from_config


def check_output(network, images):
    out = network(images)
    assert out.embedding.shape == (len(images), network.dim) and out.embedding.dtype in (torch.float32, torch.float64)
    assert torch.allclose(out.embedding.norm(dim=1), torch.ones(len(images), dtype=out.embedding.dtype), atol=1e-6)
    for head in (out.low, out.high):
        if head is not None:
            assert head.attention.shape == (len(images), 1, *head.attended.shape[2:])
            assert 0 <= head.attention.min() and head.attention.max() <= 1
            assert head.class_maps.shape == (*head.scores.shape, *head.attended.shape[2:])
    return out


@pytest.mark.parametrize("row", [*ABLATION, *COMBINATIONS])
def test_rows_keep_the_contract(row):
    settings = (ABLATION | COMBINATIONS)[row]
    network = APSE(backbone="scene_net", **settings).eval()
    with torch.no_grad():
        out = check_output(network, torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    heads = {"none": (True, True), "high": (True, False), "both": (False, False)}[settings.get("heads", "both")]
    assert (out.low is None, out.high is None) == heads


def test_any_size_a_blank_image_and_half_precision():
    network = APSE(backbone="scene_net", weights="shapes").eval()
    check_output(network.double(), torch.randn(3, 3, 70, 96, dtype=torch.float64))
    check_output(network, torch.zeros(1, 3, 64, 64, dtype=torch.float64))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        check_output(network.float().to(memory_format=torch.channels_last), torch.randn(2, 3, 64, 64))


def test_both_losses_together_reach_every_parameter():
    torch.manual_seed(0)
    network = APSE(backbone="scene_net", weights="shapes")
    out, labels = network(torch.randn(8, 3, 64, 64)), torch.arange(8)
    (out.embedding[:, 0].sum() + attention_loss(out.low, out.high, labels, MIKELS)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("settings, words", [
    (dict(heads="upper"), "heads must be 'none', 'high' or 'both', not 'upper'"),
    (dict(heads="none", attend="high"), "needs a head to attend with"),
    (dict(low=None), "need a lower stage"), (dict(low="conv7"), "Unknown stage 'conv7'"),
    (dict(pooling="gap"), "looks at the higher stage only"), (dict(pooling="average"), "Unknown pooling 'average'"),
    (dict(backbone="resnet51"), "Unknown backbone 'resnet51'")])
def test_settings_that_contradict_each_other(settings, words):
    with pytest.raises(ValueError, match=words):
        APSE(**dict(backbone="scene_net") | settings)


def test_descriptions_that_describe_nothing():
    with pytest.raises(ValueError, match="Unknown kind of network 'Perceptron': choose one of APSE"):
        network_from_config(dict(kind="Perceptron"))
    with pytest.raises(ValueError):
        APSE.from_config({"layers": 50})
