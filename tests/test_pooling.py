"""What chapter 05 promises of every pooling of two levels."""
import pytest
import torch

from apse_nb.clb import POOLINGS, TensorSketch, make_pooling, match_size, signed_sqrt


def levels(seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(3, 6, 13, 9, generator=g), torch.rand(3, 10, 4, 3, generator=g)


@pytest.mark.parametrize("kind", POOLINGS)
def test_dark_features_half_precision_and_what_is_refused(kind):
    torch.manual_seed(0)
    pooling, (low, high) = make_pooling(kind, 6, 10, dim=12), levels()
    dark = torch.zeros_like(high, requires_grad=True)
    pooling(torch.zeros_like(low), dark).sum().backward()
    assert dark.grad.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert pooling(low.bfloat16(), high.bfloat16()).dtype == torch.float32
    if not kind.startswith("gap"):
        for wrong, words in (((high, high), "lower level must be B x 6"), ((low[0], high), "lower level must be B x 6"),
                             ((low[:2], high), "must be of the same batch")):
            with pytest.raises(ValueError, match=words):
                pooling(*wrong)


def test_hashes_travel_with_the_weights():
    one, copy, (low, high) = TensorSketch(6, 10, 12), TensorSketch(6, 10, 12, seed=99), levels()
    copy.load_state_dict(one.state_dict())
    assert torch.equal(copy(low, high), one(low, high))


def test_the_sum_may_come_before_the_inverse_transform():
    g = torch.Generator().manual_seed(1)
    a, b = (torch.fft.rfft(torch.rand(2, 16, 49, generator=g, dtype=torch.float64), dim=1) for _ in range(2))
    assert torch.allclose(torch.fft.irfft(a*b, n=16, dim=1).sum(2), torch.fft.irfft((a*b).sum(2), n=16, dim=1))


def test_average_pooling_to_any_size_and_a_root_for_any_sign():
    ramp = torch.arange(24.).view(1, 1, 4, 6)
    assert match_size(ramp, torch.zeros(1, 9, 2, 3))[0, 0, 0, 0] == ramp[0, 0, :2, :2].mean()
    assert match_size(torch.rand(2, 5, 28, 21), torch.rand(2, 7, 7, 5)).shape == (2, 5, 7, 5)
    wide = torch.linspace(-50, 50, 1000, dtype=torch.float64)
    assert (signed_sqrt(wide, eps=1e-10) - wide.sign()*wide.abs().sqrt()).abs().max() < 1e-4
