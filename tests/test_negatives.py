"""GEP beside the loops of chapter 08 where a reader would not look: ties, equal points, classes that are missing."""
import pytest
import torch
from chapters import functions_of
from torch.nn import functional as F

from apse_nb.emotions import EKMAN, MIKELS
from apse_nb.negatives import GeneratedEmotionPairLoss, generate_negatives, interpolation_weight
from apse_nb.pair_losses import tuple_indices

NAIVE = functions_of("08_negatives", "naive_tuples", "naive_generated", "naive_gep", "naive_mean", "random_batch",
                     "largest_difference", tuple_indices=tuple_indices, MIKELS=MIKELS, F=F)
random_batch = NAIVE.random_batch


def twins(seed=3):
    "A batch in which some embeddings are equal, within a class and across classes."
    x, y, c = random_batch(images=2, seed=seed)
    first = [(y == k).nonzero()[0, 0] for k in range(8)]
    second = [(y == k).nonzero()[1, 0] for k in range(8)]
    x[second[0]] = x[first[0]]                       # d+ = 0 in class 0
    x[second[2]] = x[first[1]]                       # d- = 0 between classes 1 and 2 (one polarity)
    x[second[5]] = x[second[6]] = x[first[3]]        # and across the polarities
    return x, y, c


def ties():
    "Every image on its own axis: all distances are the square root of 2."
    return torch.eye(32, dtype=torch.float64), *random_batch()[1:]


def nearer_negatives():
    "Two images a class, turned to opposite sides, so that most negatives are nearer than the positive."
    x, _, c = random_batch(images=2, seed=4)
    y = torch.arange(8).repeat_interleave(2)
    sides = torch.where((torch.arange(16) + y) % 2 == 0, 1., -1.)[:, None]
    return F.normalize(x + 3*sides*torch.eye(16, dtype=torch.float64)[0], dim=1), y, c


BATCHES = {"ties": ties, "nearer negatives": nearer_negatives, "twins": twins,
           "missing": lambda: random_batch([0, 3, 6], 3, seed=5),
           "one polarity": lambda: random_batch([4, 5], 2, seed=7),
           "unequal": lambda: random_batch(range(8), [4, 2, 3, 5, 1, 2, 6, 2], seed=6)}
SWITCHES = [{}, dict(generate_in=("inter",)), dict(generate_in=("intra",), scale=8.),
            dict(gradient_through_lambda=False), dict(direction="eq12"),
            dict(direction="eq12", gradient_through_lambda=False), dict(positive="printed"),
            dict(positive="printed", scale=16., generate_in=("intra",))]


def kinds(batch):
    "How many (anchor, negative) pairs of all tuples have d- > d+, d- = d+ and d- < d+."
    anchors, positives, classes = tuple_indices(batch[1])
    d = (batch[0][anchors][:, :, None] - batch[0][positives][:, None]).norm(dim=-1)     # (T, C, C)
    d_pos, pairs = d.diagonal(dim1=1, dim2=2)[:, :, None], ~torch.eye(len(classes), dtype=torch.bool)
    return [int((test(d, d_pos) & pairs).sum()) for test in (torch.gt, torch.eq, torch.lt)]


@pytest.mark.parametrize("name", BATCHES)
def test_value_and_gradients_are_those_of_the_loops(name):
    assert NAIVE.largest_difference(BATCHES[name]()) < 1e-6


def test_the_batches_hold_what_they_are_called():
    assert kinds(ties()) == [0, 672, 0] and kinds(nearer_negatives()) == [31, 0, 81] and kinds(twins())[1] == 2


@pytest.mark.parametrize("number", range(len(SWITCHES)))
def test_every_switch_with_equal_points(number):
    assert NAIVE.largest_difference(twins(), **SWITCHES[number]) < 1e-6


def test_three_coarse_classes_and_one_that_is_alone():
    assert NAIVE.largest_difference(random_batch(range(7), 3, seed=8, taxonomy=EKMAN), EKMAN, scale=8.) < 1e-6
    assert NAIVE.largest_difference(random_batch([0, 2], 3, seed=9, taxonomy=EKMAN), EKMAN) < 1e-6


def test_gradient_and_finite_differences():
    x, y, c = random_batch([0, 1, 4, 5], 2, dim=4, seed=10)
    loss = GeneratedEmotionPairLoss(MIKELS, scale=2.)
    assert torch.autograd.gradcheck(lambda x, c: loss(x, y, c), (x.requires_grad_(), c.requires_grad_()))


def test_a_collapsed_batch_gives_finite_gradients():
    _, y, c = random_batch()
    collapsed = F.normalize(torch.ones(32, 512), dim=1).requires_grad_()
    GeneratedEmotionPairLoss(MIKELS)(collapsed, y, c.float()).backward()
    assert collapsed.grad.isfinite().all()


def test_constant_lambda_cuts_the_class_probabilities_off():
    x, y, c = random_batch()
    loss = GeneratedEmotionPairLoss(MIKELS, gradient_through_lambda=False)(x.requires_grad_(), y, c.requires_grad_())
    assert torch.autograd.grad(loss, c, allow_unused=True)[0] is None


def test_where_a_generated_negative_lies():
    g = torch.Generator().manual_seed(0)
    a, p, n = (torch.randn(100, 5, generator=g, dtype=torch.float64) for _ in range(3))
    beta = torch.rand(100, generator=g, dtype=torch.float64)
    d_pos, d_neg = (a - p).norm(dim=1), (a - n).norm(dim=1)
    moved = (a - generate_negatives(a, p, n, beta)).norm(dim=1)
    assert torch.allclose(moved, torch.where(d_neg > d_pos, beta*d_neg + (1 - beta)*d_pos, d_neg))
    # a tie, both distances zero, d+ zero, d- zero
    d_pos = torch.tensor([.5, 0., 0., .5], requires_grad=True)
    d_neg = torch.tensor([.5, 0., .5, 0.], requires_grad=True)
    weights = interpolation_weight(d_pos, d_neg, .25)
    weights.sum().backward()
    assert weights.tolist() == [1, 1, .25, 1] and d_pos.grad.isfinite().all() and d_neg.grad.isfinite().all()
