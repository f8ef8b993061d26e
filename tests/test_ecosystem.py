"""The losses run in pytorch-metric-learning: trainers, MultipleLosses, miners, wrappers. They mend or refuse what they
are given."""
import warnings

import pytest
import torch
from pytorch_metric_learning import losses as library_losses
from pytorch_metric_learning import miners, trainers
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper
from torch.nn import functional as F

from apse_nb.emotions import EKMAN, MIKELS
from apse_nb.metrics import evaluate
from apse_nb.negatives import GeneratedEmotionPairLoss
from apse_nb.pair_losses import EmotionPairLoss, NPairLoss, check_batch, gram, tuple_indices
from apse_nb.tools.registry import LOSSES
from apse_nb.training import make_pair_loss

D = 16


def make(name, **settings):
    return make_pair_loss(name, MIKELS, D, **settings)


NAMES = [name for name in LOSSES if name not in ("sentiment_constraint", "adaptive_similarity")]
pytestmark = pytest.mark.filterwarnings("ignore:The generated emotion-pair loss was given no class probabilities")


def tuple_similarities(x, y):
    "T x C x C: the dot products of each tuple's anchors and positives."
    anchors, positives, _ = tuple_indices(y)
    return gram(x)[anchors[:, :, None], positives[:, None, :]]


def batch(seed=0, dtype=torch.float32, classes=8, images=4, dim=D):
    g = torch.Generator().manual_seed(seed)
    x = F.normalize(torch.randn(classes*images, dim, generator=g, dtype=dtype), dim=1)
    return x, torch.arange(classes).repeat_interleave(images)


def probabilities(seed=0):
    return torch.randn(32, 8, generator=torch.Generator().manual_seed(seed)).softmax(1)


def gradient(loss, x, *rest, **further):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(loss(x, *rest, **further), x)[0]


class Images(torch.utils.data.Dataset):
    "64 vectors that an embedder can learn to tell apart."
    labels = torch.arange(8).repeat_interleave(8)
    def __len__(self):
        return 64
    def __getitem__(self, i):
        g = torch.Generator().manual_seed(int(i))
        return F.one_hot(self.labels[i], 20).float() + .4*torch.randn(20, generator=g), int(self.labels[i])


class Balanced(torch.utils.data.Sampler):
    def __init__(self):
        pass
    def __len__(self):
        return 64
    def __iter__(self):
        for k in range(2):
            yield from (8*c + 4*k + i for c in range(8) for i in range(4))


@pytest.mark.parametrize("name", NAMES)
def test_the_library_trains_with_our_losses(name):
    torch.manual_seed(0)
    trunk, loss = torch.nn.Linear(20, D), make(name)      # nothing normalises: the losses do
    before = trunk.weight.clone()
    parameters = [*trunk.parameters(), *loss.parameters()]
    found, x = [], torch.stack([Images()[i][0] for i in range(64)])

    def quality():
        f = trunk(x).detach()
        report = evaluate(f, Images.labels, f, Images.labels, MIKELS, same_set=True)
        return report.map2 if name == "gep" else report.map8     # chapter 08 says why

    worse = quality()
    trainer = trainers.MetricLossOnly(models={"trunk": trunk}, loss_funcs={"metric_loss": loss}, batch_size=32,
                                      optimizers={"trunk_optimizer": torch.optim.Adam(parameters, lr=.02)},
                                      mining_funcs={}, dataset=Images(), sampler=Balanced(), dataloader_num_workers=0,
                                      data_device="cpu", dtype=torch.float32,
                                      end_of_iteration_hook=lambda t: found.append(t.losses["metric_loss"].item()))
    trainer.train(num_epochs=4)
    assert len(found) == 8 and all(map(torch.isfinite, torch.tensor(found)))
    assert not torch.equal(trunk.weight, before) and quality() > worse


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("miner", ["MultiSimilarityMiner", "TripletMarginMiner", "BatchHardMiner"])
def test_a_miners_pairs_are_used_or_refused(name, miner):
    torch.manual_seed(0)
    loss, (x, y) = make(name), batch()
    listed = [t[::2] for t in getattr(miners, miner)()(x, y)]
    if name in ("center", "softmax"):          # compare images with classes
        with pytest.raises(ValueError, match="leave out the miner"):
            loss(x, y, listed)
    else:
        assert not torch.allclose(loss(x, y, listed), loss(x, y))


@pytest.mark.parametrize("name", ["n_pair", "ep", "gep", "binomial_deviance"])
def test_all_pairs_are_the_whole_loss_and_no_pairs_are_nothing(name):
    loss, (x, y) = make(name), batch()
    same = y[:, None] == y
    everything = (*(same & ~torch.eye(32, dtype=torch.bool)).nonzero().T, *(~same).nonzero().T)
    assert torch.allclose(loss(x, y, everything), loss(x, y))
    nothing = torch.zeros(0, dtype=torch.long)
    assert loss(x, y, (nothing,)*4) == 0 and gradient(loss, x, y, (nothing,)*3).abs().max() == 0
    with pytest.raises(ValueError, match="triplets"):
        loss(x, y, (nothing, nothing))


def test_only_listed_images_get_a_force():
    loss, (x, y) = EmotionPairLoss(MIKELS, terms=("intra",)), batch()
    listed = tuple(torch.tensor([i]) for i in (0, 1, 5))       # anchor 0, positive 1, negative 5
    moved = gradient(loss, x, y, listed).abs().sum(1) > 0
    assert moved.nonzero().flatten().tolist() == [0, 1, 5]


def test_multiple_losses_and_weights():
    x, y = batch()
    both = library_losses.MultipleLosses([EmotionPairLoss(MIKELS), make("contrastive")], weights=[.5, 2])
    assert torch.allclose(both(x, y), .5*EmotionPairLoss(MIKELS)(x, y) + 2*make("contrastive")(x, y))
    mined = library_losses.MultipleLosses({"n_pair": NPairLoss(), "ep": EmotionPairLoss(MIKELS)},
                                          miners={"n_pair": miners.MultiSimilarityMiner()})
    listed = miners.MultiSimilarityMiner()(x, y)
    assert torch.allclose(mined(x, y), NPairLoss()(x, y, listed) + EmotionPairLoss(MIKELS)(x, y))


def test_memory_and_distribution_take_the_librarys_own_object():
    x, y = batch()
    memory = library_losses.CrossBatchMemory(make("contrastive").loss, D, memory_size=64)
    assert memory(x, y).isfinite() and memory(*batch(1)).isfinite()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.allclose(DistributedLossWrapper(make("contrastive").loss)(x, y), make("contrastive")(x, y))
    with pytest.raises(Exception, match="not supported for EmotionPairLoss"):    # tuples lie within one batch
        library_losses.CrossBatchMemory(EmotionPairLoss(MIKELS), D)


def test_class_probabilities_come_third_or_by_name():
    loss, (x, y), c = GeneratedEmotionPairLoss(MIKELS), batch(), probabilities()
    assert torch.equal(loss(x, y, c), loss(x, y, confidences=c))
    listed = miners.MultiSimilarityMiner()(x, y)
    assert not torch.allclose(loss(x, y, listed, c), loss(x, y, c))
    with pytest.warns(UserWarning, match="equally confusable"):
        assert torch.allclose(loss(x, y), loss(x, y, torch.full((32, 8), 1/8)))


@pytest.mark.parametrize("name", NAMES)
def test_lengths_do_not_matter(name):
    torch.manual_seed(0)
    loss, (x, y) = make(name), batch()
    sizes = torch.logspace(-3, 6, 32)[:, None]
    assert torch.allclose(loss(sizes*x, y), loss(x, y), rtol=1e-4, atol=1e-5)
    along = (gradient(loss, sizes*x, y)*x).sum(1)*sizes[:, 0]                     # the way that a length can not matter
    assert along.abs().max() < 1e-4


def test_unit_vectors_pass_unchanged():
    x, y = batch()
    assert check_batch(x, y)[0] is x


@pytest.mark.parametrize("name", NAMES)
def test_what_no_loss_can_use_is_one_sentence(name):
    loss, (x, y) = make(name), batch()
    for broken, words in ((x*1e20, "numbers beyond 1e18"), (x.where(x < .3, torch.nan), "NaN or infinity"),
                          (x.where(x < .3, torch.inf), "NaN or infinity"), (x.double()*1e160, "numbers beyond 1e18"),
                          (x*(torch.arange(32) != 5)[:, None], "1 of 32 embeddings are zero in every number"),
                          (x[0], "B x D tensor"), (x.long(), "B x D tensor")):
        with pytest.raises(ValueError, match=words):
            loss(broken, y)
    with pytest.raises(ValueError, match="one integer label for each of the 32"):
        loss(x, y[:5])
    with pytest.raises(ValueError, match="one integer label for each of the 32"):
        loss(x, y.float())
    if name != "n_pair":
        with pytest.raises(ValueError, match="Labels must lie in 0..7"):
            loss(x, y + 4)


def test_settings_that_make_no_sense():
    assert NPairLoss(torch.tensor(2.)).scale == NPairLoss(torch.tensor(2).numpy()).scale == 2.
    for call, words in ((lambda: NPairLoss(0.), "scale must be a number above 0"),
                        (lambda: NPairLoss(10**400), "scale must be a number above 0, not 1000"),
                        (lambda: EmotionPairLoss(MIKELS, terms="inter"), "'inter' or 'intra', not 'inter'"),
                        (lambda: EmotionPairLoss(MIKELS, terms=()), r"'inter' or 'intra', not \(\)"),
                        (lambda: EmotionPairLoss(MIKELS, terms=("outer",)), "'inter' or 'intra'"),
                        (lambda: GeneratedEmotionPairLoss(MIKELS, direction="eq11"), "'eq10' or 'eq12'"),
                        (lambda: GeneratedEmotionPairLoss(MIKELS, generate_in=("outer",)), "'inter' or 'intra'"),
                        (lambda: NPairLoss()(*batch(classes=1)), "two classes"),
                        (lambda: NPairLoss()(*batch(images=1)), "two classes"),
                        (lambda: GeneratedEmotionPairLoss(MIKELS)(*batch(), probabilities()[:, :7]), "32 x 8"),
                        (lambda: GeneratedEmotionPairLoss(MIKELS)(*batch(), probabilities().log()), "apply softmax")):
        with pytest.raises(ValueError, match=words):
            call()


def test_every_image_with_company_is_in_a_tuple():
    labels = torch.arange(4).repeat_interleave(torch.tensor([10, 10, 10, 2]))
    anchors, positives, classes = tuple_indices(labels)
    assert anchors.unique().tolist() == positives.unique().tolist() == list(range(32)) and len(anchors) == 90
    assert (labels[anchors] == classes).all() and (labels[positives] == classes).all() and (anchors != positives).all()
    pairs = set(zip(anchors[:, 0].tolist(), positives[:, 0].tolist()))
    assert len(pairs) == 90                                        # every ordered pair of the largest class
    x = F.normalize(torch.randn(32, D, generator=torch.Generator().manual_seed(0)), dim=1)
    assert (gradient(NPairLoss(), x, labels).abs().sum(1) > 0).all()


@pytest.mark.parametrize("make_loss", [EmotionPairLoss, GeneratedEmotionPairLoss])
def test_a_class_alone_in_its_polarity_learns(make_loss):
    neutral = EKMAN.fine.index("neutral")
    x, y = batch(classes=7)
    c = torch.full((28, 7), 1/7)
    loss, given = make_loss(EKMAN, terms=("intra",)) if make_loss is EmotionPairLoss else make_loss(EKMAN), (c,)
    given = given if make_loss is GeneratedEmotionPairLoss else ()
    two = (y == neutral) | (y == EKMAN.fine.index("joy"))          # both alone: nothing but the term against all others
    assert (gradient(loss, x[two], y[two], *(t[two] for t in given)).abs().sum(1) > 0).all()
    if make_loss is EmotionPairLoss:
        assert torch.allclose(EmotionPairLoss(EKMAN)(x[two], y[two]), NPairLoss()(x[two], y[two]))


@pytest.mark.parametrize("noise", [1e-1, 1e-2, 1e-3, 1e-4])
def test_float32_gradient_of_gep_near_the_end_of_training(noise):
    loss, y = GeneratedEmotionPairLoss(MIKELS), torch.arange(8).repeat_interleave(4)
    g = torch.Generator().manual_seed(1)
    centres = F.normalize(torch.randn(8, 64, generator=g, dtype=torch.float64), dim=1)
    x = F.normalize(centres[y] + noise*torch.randn(32, 64, generator=g, dtype=torch.float64)/8, dim=1).float()
    exact = gradient(loss, x.double(), y, probabilities().double())
    found = gradient(loss, x, y, probabilities()).double()
    exact, found = (v - (v*x.double()).sum(1, keepdim=True)*x.double() for v in (exact, found))     # along the sphere
    assert (found - exact).norm()/exact.norm() < 1e-3


def test_baselines_refuse_settings_and_batches_that_make_no_sense():
    x, y = batch()
    for name, settings, words in (("contrastive", dict(neg_margin=-1), "neg_margin must be a number above 0"),
                                  ("sphereface", dict(margin=2.5), "margin must be 1, 2, 3 or 4"),
                                  ("softtriple", dict(tau=-1), "tau must be a number of at least 0"),
                                  ("arcface", dict(scale=None), "scale must be a number above 0")):
        with pytest.raises(ValueError, match=words):
            make(name, **settings)
    with pytest.raises(ValueError, match="made for embeddings of 16 numbers"):
        make("arcface")(x[:, :8], y)
    with pytest.raises(ValueError, match="The batch is empty"):
        make("arcface")(x[:0], y[:0])


def test_n_pair_under_its_other_names():
    "Eq. 4 on one tuple is `NPairsLoss`; anchors on one side and positives on the other make it `NTXentLoss`."
    from pytorch_metric_learning.distances import DotProductSimilarity
    x, y = batch(dtype=torch.float64)
    products = DotProductSimilarity(normalize_embeddings=False)
    first = tuple_similarities(x, y)[0]
    assert torch.allclose(F.cross_entropy(first, torch.arange(8)), library_losses.NPairsLoss(distance=products)(x, y))
    nt_xent = library_losses.NTXentLoss(temperature=1/8, distance=products)
    anchors, positives, classes = tuple_indices(y)
    # clone: labels that are the same object on both sides tell the library that an image must not meet itself
    theirs = [nt_xent(x[a], classes, ref_emb=x[p], ref_labels=classes.clone()) for a, p in zip(anchors, positives)]
    assert torch.allclose(NPairLoss(scale=8)(x, y), torch.stack(theirs).mean(), atol=1e-6)


def test_a_list_of_pairs_is_a_loop_over_the_tuples():
    "Eq. 4 over what a miner lists: hard positives (cosine below .1) and hard negatives (above -.1)."
    x, y = batch(dtype=torch.float64)
    G, alike = x @ x.T, y[:, None] == y
    near = (alike & ~torch.eye(32, dtype=torch.bool) & (G < .1)).nonzero()
    far = (~alike & (G > -.1)).nonzero()
    listed, terms = [set(map(tuple, pairs.tolist())) for pairs in (near, far)], []
    for anchors, positives in zip(*(t.tolist() for t in tuple_indices(y)[:2])):
        for a, p in zip(anchors, positives):
            if (a, p) in listed[0]:
                gaps = [x[a] @ x[n] - x[a] @ x[p] for n in positives if (a, n) in listed[1]]
                terms.append(torch.log(1 + sum(map(torch.exp, gaps))) if gaps else torch.tensor(0.))
    mined = NPairLoss()(x, y, (*near.T, *far.T))
    assert torch.allclose(mined, sum(terms)/len(terms)) and not torch.allclose(mined, NPairLoss()(x, y))


@pytest.mark.parametrize("name", ["n_pair", "ep", "gep"])
def test_half_precision_comes_in_and_float32_goes_out(name):
    loss, (x, y) = make(name), batch(dim=64)
    half = x.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(half, y)
    value.backward()
    assert value.dtype == torch.float32 and half.grad.isfinite().all()
    assert torch.allclose(value, loss(half.detach().float(), y))


def test_order_matters_within_a_class_only():
    x, y = batch(dtype=torch.float64)
    order = torch.arange(32).reshape(8, 4).T.flatten()         # image 0 of every class, then image 1, ...
    assert torch.allclose(tuple_similarities(x[order], y[order]), tuple_similarities(x, y), atol=1e-12)
