"""The measures of chapter 09 are exact: concentrated embeddings, ties, tables of similarities, tensors on a device."""
import math
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import torch
from chapters import functions_of

from apse_nb import metrics
from apse_nb.emotions import EKMAN, MIKELS
from apse_nb.metrics import MEASURES, evaluate, evaluate_similarities
from apse_nb.tools import ranking
from apse_nb.tools.ranking import rank_gallery, unit_rows

NAIVE = functions_of("09_metrics", "naive_ap", "naive_nn", "naive_ft", "naive_st", "naive_dcg", "naive_ndcg",
                     "naive_mean_ndcg", "naive_nmrr", "naive_f1", "naive_order", "naive_evaluate", "naive_row",
                     math=math)


def clusters(n, noise=.5, seed=0, dim=64):
    "Embeddings in eight clusters, and their labels."
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(8, dim))
    rng = np.random.default_rng(seed)
    labels = rng.integers(8, size=n)
    return centres[labels] + noise*rng.normal(size=(n, dim)), labels


@pytest.mark.parametrize("dtype, closeness", [(np.float64, 1), (np.float64, 1e-5), (np.float64, 1e-9),
                                              (np.float32, 1e-5)])
def test_concentrated_embeddings_are_ranked_exactly(dtype, closeness):
    x, labels = clusters(500)
    shared = np.random.default_rng(5).normal(size=64)
    near = (shared + closeness*x).astype(dtype)
    report = evaluate(near[:100], labels[:100], near[100:], labels[100:], MIKELS)
    assert report.nn == 1 and report.map8 > .99
    order, _ = rank_gallery(near[:100], near[100:])
    wide = near.astype(np.longdouble)                  # 64 bits of mantissa: the order by differences
    wide /= np.sqrt((wide**2).sum(1, keepdims=True))
    distances = ((wide[:100, None] - wide[None, 100:])**2).sum(-1)
    if closeness > 1e-9:                               # below, even these digits are used up
        assert (order == distances.argsort(1)).all()


def test_one_outlier_does_not_blur_the_others():
    x, labels = clusters(400)
    near = np.random.default_rng(5).normal(size=64) + 1e-5*x
    near[399] *= -1
    report = evaluate(near[:100], labels[:100], near[100:], labels[100:], MIKELS)
    assert report.nn == 1 and report.map8 > .98 and report.tied == 0


@pytest.mark.parametrize("same_set", [False, True])
def test_equal_scores_give_the_random_floor_whatever_the_order(same_set):
    rng = np.random.default_rng(1)
    g_labels = np.sort(rng.integers(8, size=300))
    q_labels = g_labels if same_set else rng.integers(8, size=50)
    for stored in (g_labels, g_labels[::-1]):
        asked = stored if same_set else q_labels
        for report in (evaluate(np.ones((len(asked), 5)), asked, np.ones((300, 5)), stored, MIKELS, same_set),
                       evaluate_similarities(np.zeros((len(asked), 300)), asked, stored, MIKELS, same_set)):
            assert np.allclose(report.frame()["value"], report.frame()["random floor"], rtol=0, atol=1e-12)
            assert report.tied == len(asked)


def test_one_tie_lies_between_its_best_and_its_worst_order():
    "Ten relevant images of 24, all equal: 1 or below .35 by the gallery's order, .434 for either on average."
    labels = np.array([0]*10 + [4]*14)
    table = np.ones((1, 24))
    orders = labels, labels[::-1]
    values = {ties: [evaluate_similarities(table, [0], order, MIKELS, ties=ties).map8 for order in orders]
              for ties in ("gallery", "expected")}
    assert values["gallery"][0] == 1 and values["gallery"][1] < .35
    assert np.allclose(values["expected"], metrics._random_average_precision(10, 24), rtol=0, atol=1e-12)


def test_expected_values_are_means_over_all_orders():
    rng = np.random.default_rng(2)
    gallery, labels = rng.integers(0, 2, size=(6, 2)) + .5, np.array([0, 1, 0, 4, 5, 0])
    query, asked = np.array([[3., 1], [1, 1], [1, 2]]), [0, 1, 4]
    every = [evaluate(query, asked, gallery[list(p)], labels[list(p)], MIKELS, ties="gallery")
             for p in permutations(range(6))]
    report = evaluate(query, asked, gallery, labels, MIKELS)
    assert report.tied > 0
    assert np.allclose(np.mean([r.per_query for r in every], 0), report.per_query, rtol=0, atol=1e-12, equal_nan=True)
    assert np.allclose(np.mean([r.at_k for r in every], 0), report.at_k, rtol=0, atol=1e-12)


def test_copies_tie_however_long_and_wherever_they_are():
    x, labels = clusters(60, seed=3, dim=33)
    query, asked = clusters(7, seed=4, dim=33)
    twins = np.concatenate([x, 3.7*x])
    for offset in (0, 1e3):                            # ordinary embeddings, and concentrated ones
        order, group = rank_gallery(query + offset, np.concatenate([x + offset, 3.7*(x + offset)]))
        assert (order[:, ::2] + 60 == order[:, 1::2]).all() and (group[:, ::2] == group[:, 1::2]).all()
    report = evaluate(query, asked, twins, np.concatenate([labels, (labels + 1) % 8]), MIKELS)
    other = evaluate(query, asked, twins, np.concatenate([(labels + 1) % 8, labels]), MIKELS)
    assert np.allclose(report.per_query, other.per_query, rtol=0, atol=1e-12) and report.tied == 7


def test_a_zero_row_has_similarity_zero():
    gallery = np.array([[1., 0], [0, 0], [0, 1], [-1, 0]])
    assert rank_gallery([[1., .2]], gallery)[0][0].tolist() == [0, 2, 1, 3]
    assert rank_gallery([[1., -.2]], gallery)[0][0].tolist() == [0, 1, 2, 3]
    assert rank_gallery([[0., 0]], gallery)[1].max() == 0


@pytest.mark.parametrize("size", [1e200, 1e-200, 1e160])
def test_lengths_that_cannot_be_squared(size):
    x, labels = clusters(80, seed=6)
    huge, plain = (evaluate(s*x[:30], labels[:30], s*x[30:], labels[30:], MIKELS) for s in (size, 1))
    assert huge.per_query.equals(plain.per_query)


def test_any_rising_function_of_similarities_gives_the_same_report():
    x, labels = clusters(120, noise=2., seed=7)
    cosines = unit_rows(x[:40], "query") @ unit_rows(x[40:], "gallery").T
    wanted = evaluate_similarities(cosines, labels[:40], labels[40:], MIKELS)
    for table in (1e9*cosines, cosines*1e-9, 1 + cosines, np.exp(30*cosines), cosines - 1e3,
                  torch.from_numpy(1e5*cosines)):
        assert evaluate_similarities(table, labels[:40], labels[40:], MIKELS).per_query.equals(wanted.per_query)


def test_precision_recall_and_hit_rate():
    labels = np.array([0, 1, 0, 1, 1, 1, 2, 2])
    report = evaluate_similarities(-np.arange(8.)[None], [0], labels, MIKELS)       # relevant at ranks 1 and 3
    assert report.at_k.loc[1].tolist() == [1, .5, 1] and report.at_k.loc[5].tolist() == [.4, 1, 1]
    assert report.at_k.loc[10].tolist() == [.25, 1, 1]                              # the list has eight images
    late = evaluate_similarities(-np.arange(8.)[None], [2], labels, MIKELS)
    assert late.at_k.loc[5].tolist() == [0, 0, 0]


class Away(torch.Tensor):
    "A tensor that counts what is copied from it to main memory or asked of it."
    copied = []
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name in ("cpu", "item", "tolist", "numpy", "__bool__", "__int__", "nonzero"):
            cls.copied.append((name, args[0].numel()))
        return super().__torch_function__(function, types, args, kwargs or {})


def test_a_device_is_asked_once_and_only_for_finished_values():
    x, labels = clusters(300, noise=2., seed=8)
    left, right, bounds = ranking.half_squares(x[:60], x[60:])
    left, right, *bounds = (torch.from_numpy(t).as_subclass(Away) for t in (left, right, *bounds))
    Away.copied.clear()
    report = metrics._report(lambda i: left[i] @ right.T, bounds, (labels[:60], labels[60:], MIKELS, False), (20, None),
                             "expected", 5, sources=())
    assert len(Away.copied) <= 2 and all(numel <= 60*(9 + 2*len(metrics.CUTS) + 1) for _, numel in Away.copied)
    wanted = evaluate(x[:60], labels[:60], x[60:], labels[60:], MIKELS)
    assert np.allclose(report.per_query, wanted.per_query, rtol=0, atol=1e-12)
    assert np.allclose(report.at_k, wanted.at_k, rtol=0, atol=1e-12)


def test_mistakes_are_met_with_one_sentence():
    x, labels = clusters(40, seed=9)
    Q, Ql, G, Gl = x[:10], labels[:10], x[10:], labels[10:]
    broken = G.copy()
    broken[5, 2] = np.nan
    cases = [((Q, Ql, broken, Gl), {}, "1 of 30 gallery embeddings contain NaN or infinity"),
             ((Q, Ql, G[:, :5], Gl), {}, "with the same network"),
             ((Q, Ql[:-1], G, Gl), {}, "one label for each image"),
             ((Q[0], Ql[:1], G, Gl), {}, "images x dimensions"),
             ((Q, Ql, G, Gl + 8), {}, "The gallery labels must lie in 0..7"),
             ((Q, ["awe"]*10, G, Gl), {}, "taxonomy.index"), ((Q, Ql, G[:0], Gl[:0]), {}, "gallery set is empty"),
             ((Q, Ql, G, Gl), dict(same_set=True), "queries must be the gallery"),
             ((Q, np.zeros(10, int), G, np.ones(30, int)), {}, "No query has a gallery image"),
             ((Q, Ql, G, Gl), dict(f1_at=0), "at least 1"), ((Q, Ql, G, Gl), dict(ties="best"), "'expected'")]
    for sets, options, words in cases:
        with pytest.raises(ValueError, match=words):
            evaluate(*sets, MIKELS, **options)
    report = evaluate(Q, Ql, G, Gl, MIKELS)
    for question, words in ((lambda: report.interval("map9"), "Unknown measure 'map9'"),
                            (lambda: report.ranking(15), "There is no query 15")):
        with pytest.raises(ValueError, match=words):
            question()
    with pytest.raises(ValueError, match="NaN or infinity"):
        evaluate_similarities(np.full((10, 30), np.nan), Ql, Gl, MIKELS)


def small_sets(seed=3):
    "Random embeddings and labels: 15 queries, 70 gallery images."
    rng = np.random.default_rng(seed)
    Q, G = rng.normal(size=(15, 8)), rng.normal(size=(70, 8))
    return Q, rng.integers(8, size=15), G, rng.integers(8, size=70)


def check(*sets, taxonomy=MIKELS, same_set=False):
    "Fast = naive, query by query, left-out ones included; returns the report."
    report = evaluate(*sets, taxonomy, same_set=same_set, ties="gallery")
    naive = NAIVE.naive_evaluate(*sets, taxonomy, same_set)
    pd.testing.assert_frame_equal(report.per_query, naive.astype(float), check_exact=False, rtol=0, atol=1e-6)
    assert np.allclose([getattr(report, m) for m in MEASURES], naive.mean(), rtol=0, atol=1e-6)
    return report


def test_the_measures_are_those_of_the_loops():
    Q, Ql, G, Gl = small_sets()
    check(Q, Ql, G, Gl)
    check(G, Gl, G, Gl, same_set=True)
    check(np.sign(Q[:, :3]), Ql, np.sign(G[:, :3]), Gl)                           # at most eight different vectors
    check(np.sign(G[:, :3]), Gl, np.sign(G[:, :3]), Gl, same_set=True)
    check(Q[:3], [0, 1, 1], G[:9], [0, 1, 1, 1, 1, 2, 2, 3, 4])                   # one relevant image for query 0
    everything = check(Q[:2], [5, 5], G, np.full(70, 5))
    assert np.allclose([everything.map8, everything.map2, everything.nn, everything.ft, 1 - everything.anmrr], 1)
    check(Q[:1], [0], G[:1], [0])
    labels = [0]*6 + [1]*5 + [7]                                                  # the only image of its class
    assert check(G[:12], labels, G[:12], labels, same_set=True).left_out == {"fine": 1, "coarse": 1}
    check(Q, Ql % 7, G, Gl % 7, taxonomy=EKMAN)


def test_the_order_is_that_of_a_stable_sort():
    rng = np.random.default_rng(0)
    Q, G = rng.integers(-1, 2, (20, 6))/6, rng.integers(-1, 2, (150, 6))/6        # hundreds of ties
    U, V = unit_rows(Q, "query"), unit_rows(G, "gallery")
    assert (rank_gallery(Q, G)[0] == [NAIVE.naive_order(q, V) for q in U]).all()
    copies = np.array([[0., 1.], [1., 0.], [-1., 0.], [1., 0.], [.8, .6]])
    assert rank_gallery(copies[3:4], copies, leave_out=[3])[0][0, -1] == 3        # its own copy is sent to the end
    Q, Ql, G, Gl = small_sets()
    assert evaluate(Q, Ql, G, Gl, MIKELS).ranking(7, k=70).tolist() == NAIVE.naive_order(Q[7], unit_rows(G, "gallery"))
    assert 4 not in evaluate(G, Gl, G, Gl, MIKELS, same_set=True).ranking(4, k=70)


def test_ties_are_means_over_orders_for_each_measure():
    "One list with three groups of tied ranks: every measure over all 72 orders."
    rel, groups = [1, 0, 0, 1, 0, 0, 0, 1, 0, 0], [[0], [1, 2, 3], [4], [5, 6], [7, 8, 9]]
    orders = [[]]
    for group in groups:
        orders = [done + [rel[i] for i in order] for done in orders for order in permutations(group)]
    tied = np.array([[False, True, True, False, False, True, False, True, True]])
    share, ap, _ = ranking.expected_lists(np.array([rel]), tied)
    assert len(orders) == 72 and np.isclose(ap[0], np.mean([NAIVE.naive_ap(o) for o in orders]), rtol=0, atol=1e-12)
    slow = dict(nn=NAIVE.naive_nn, ft=NAIVE.naive_ft, st=NAIVE.naive_st, dcg=NAIVE.naive_mean_ndcg,
                ndcg=lambda r: NAIVE.naive_ndcg(r, 10), anmrr=lambda r: NAIVE.naive_nmrr(r, 3),
                f1=lambda r: NAIVE.naive_f1(r, 5))
    for m, w in metrics.rank_weights(3, 10, 3, f1_at=5).items():
        assert np.isclose(share[0] @ w, np.mean([slow[m](o) for o in orders]), rtol=0, atol=1e-12), m


def test_container_number_type_chunk_and_length_do_not_matter():
    Q, Ql, G, Gl = small_sets()
    plain = evaluate(Q, Ql, G, Gl, MIKELS)

    def agree(a, b):
        return np.allclose(a.per_query, b.per_query, rtol=0, atol=1e-12, equal_nan=True)
    assert agree(evaluate(torch.tensor(3*Q), torch.tensor(Ql), G, Gl.astype(np.uint8), MIKELS), plain)
    assert agree(evaluate(Q.tolist(), Ql.tolist(), G, torch.tensor(Gl, dtype=torch.int32), MIKELS, chunk=2), plain)
    assert agree(evaluate(Q.astype(np.float32), Ql, G.astype(np.float32), Gl, MIKELS), plain)
    half_Q, half_G = torch.tensor(Q).bfloat16(), torch.tensor(G).bfloat16()
    assert agree(evaluate(half_Q, Ql, half_G, Gl, MIKELS), evaluate(half_Q.double(), Ql, half_G.double(), Gl, MIKELS))
    if torch.cuda.is_available():
        assert agree(evaluate(torch.tensor(Q).cuda(), Ql, torch.tensor(G).cuda(), Gl, MIKELS), plain)


@pytest.mark.parametrize("same_set", [False, True])
def test_tensors_go_the_same_way_as_arrays(same_set):
    Q, Ql, G, Gl = small_sets()
    rows, labels = (np.sign(G[:, :3]), Gl) if same_set else (Q, Ql)              # the first is full of ties
    gallery = rows if same_set else G
    left, right, *bounds = (torch.from_numpy(x) for part in ranking.half_squares(rows, gallery)
                            for x in (part if isinstance(part, tuple) else (part,)))
    arrays = evaluate(rows, labels, gallery, Gl, MIKELS, same_set=same_set)
    tensors = metrics._report(lambda i: left[i] @ right.T, bounds, (labels, Gl, MIKELS, same_set), (20, None),
                              "expected", None, sources=())
    assert np.allclose(arrays.per_query, tensors.per_query, rtol=0, atol=1e-12, equal_nan=True)
    assert arrays.tied == tensors.tied and np.allclose(arrays.at_k, tensors.at_k)


@pytest.mark.parametrize("same_set", [False, True])
def test_similarities_and_embeddings_give_one_report(same_set):
    Q, Ql, G, Gl = small_sets()
    rows, labels = (G, Gl) if same_set else (Q, Ql)
    direct = evaluate(rows, labels, G, Gl, MIKELS, same_set=same_set)
    cosines = unit_rows(rows, "query") @ unit_rows(G, "gallery").T
    for table in (cosines, torch.tensor(cosines), np.tanh(cosines), np.exp(50*cosines)):
        indirect = evaluate_similarities(table, labels, Gl, MIKELS, same_set=same_set)
        assert direct.per_query.equals(indirect.per_query) and direct.floor == indirect.floor
    assert indirect.ranking(5, 8).tolist() == direct.ranking(5, 8).tolist()


def test_random_embeddings_score_the_floor():
    _, Ql, _, Gl = small_sets()

    def noise(n, seed):
        return np.random.default_rng(seed).normal(size=(n, 8))
    draws = [evaluate(noise(15, s), Ql, noise(70, 100 + s), Gl, MIKELS) for s in range(40)]
    mean = sum(report.frame()["value"] for report in draws)/40
    assert np.abs(mean - draws[0].frame()["random floor"]).max() < .05


def test_interval_of_a_mean_over_queries():
    Q, Ql, G, Gl = small_sets()
    report = evaluate(Q, Ql, G, Gl, MIKELS)
    low, high = report.interval("map8")
    assert low < report.map8 < high and report.interval("map8") == (low, high)    # the seed makes it repeatable
    assert report.interval("map8", level=.5)[0] > low


def test_lists_that_lie_on_a_device_are_worth_the_same():
    bits = np.random.default_rng(0).integers(0, 4, (50, 300)).astype(np.uint8)
    bits[3], bits[4] = 0, 2                     # nothing relevant; nothing of the same emotion
    weights = np.column_stack(list(metrics.rank_weights(40, 300, 60).values()))
    here, there = metrics._list_values(bits, weights), metrics._list_values(*map(torch.from_numpy, (bits, weights)))
    assert np.isnan(here[3, :2]).all() and here.shape == (50, 17)
    assert np.allclose(here, there.numpy(), rtol=0, atol=1e-12, equal_nan=True)
    none = np.zeros((0, 5), bool)
    assert len(metrics.average_precision(none)) == len(metrics.average_precision(torch.from_numpy(none))) == 0
