"""The measures of chapter 09 beside other libraries: where the definitions are the same, so are the numbers."""
import numpy as np
import pytest
import torch
from chapters import functions_of

import apse_nb  # noqa: F401   before torchmetrics, which imports torchvision (chapter 03)
from apse_nb.emotions import MIKELS
from apse_nb.metrics import evaluate
from apse_nb.tools.ranking import unit_rows

fake_embeddings = functions_of("09_metrics", "fake_embeddings", MIKELS=MIKELS).fake_embeddings


@pytest.fixture(scope="module")
def sets():
    rng = np.random.default_rng(0)
    q_labels, g_labels = rng.integers(8, size=120), rng.integers(8, size=1000)
    return fake_embeddings(q_labels, .4, seed=1), q_labels, fake_embeddings(g_labels, .4, seed=2), g_labels


@pytest.fixture(scope="module")
def table(sets):
    "The report, the cosines and which of them belong to relevant images."
    q, q_labels, g, g_labels = sets
    cosines = torch.tensor(unit_rows(q, "query") @ unit_rows(g, "gallery").T)
    return evaluate(*sets, MIKELS), cosines, torch.tensor(q_labels[:, None] == g_labels[None, :])


@pytest.mark.parametrize("same_set", [False, True])
def test_pytorch_metric_learning(sets, same_set):
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN
    sets = (*sets[2:], *sets[2:]) if same_set else sets
    calculator = AccuracyCalculator(include=("precision_at_1", "r_precision", "mean_average_precision"),
                                    k=len(sets[2]) - same_set, knn_func=CustomKNN(CosineSimilarity()))
    theirs = calculator.get_accuracy(*map(torch.tensor, sets), ref_includes_query=same_set)
    ours = evaluate(*sets, MIKELS, same_set=same_set)
    assert np.allclose([theirs[k] for k in ("mean_average_precision", "precision_at_1", "r_precision")],
                       [ours.map8, ours.nn, ours.ft], rtol=0, atol=1e-6)


def test_torchmetrics(table):
    from torchmetrics.functional.retrieval import retrieval_precision, retrieval_recall
    from torchmetrics.retrieval import RetrievalHitRate, RetrievalMAP, RetrievalRPrecision
    report, cosines, target = table
    index = torch.arange(len(target))[:, None].expand_as(target)
    flat = dict(target=target.flatten(), indexes=index.flatten())
    theirs = [float(metric((cosines + 1).flatten(), **flat))
              for metric in (RetrievalMAP(), RetrievalHitRate(top_k=1), RetrievalRPrecision())]
    assert np.allclose(theirs, [report.map8, report.nn, report.ft], rtol=0, atol=1e-6)
    negative_is_irrelevant = float(RetrievalMAP()(cosines.flatten(), **flat))
    assert round(negative_is_irrelevant, 3) == .458 and round(report.map8, 3) == .438       # as chapter 09 says
    p, r = (torch.stack([f(s, t, top_k=20) for s, t in zip(cosines, target)]).double()
            for f in (retrieval_precision, retrieval_recall))
    assert np.allclose(2*p*r/(p + r).clamp(min=1e-12), report.per_query["f1"], rtol=0, atol=1e-6)


def test_scikit_learn(sets, table):
    from sklearn.metrics import average_precision_score, dcg_score, ndcg_score
    report, cosines, target = table
    theirs = [average_precision_score(t, s) for t, s in zip(target, cosines)]
    assert np.allclose(theirs, report.per_query["map8"], rtol=0, atol=1e-6)

    def shifted_ndcg(rel):
        place = -np.arange(len(rel) - 1)[None]                        # scores that keep the order as it is
        found, ideal = (r[0] + dcg_score(r[None, 1:], place) for r in (rel, np.sort(rel)[::-1]))
        return found/ideal
    lists = [(sets[3][report.ranking(i, 1000)] == sets[1][i]).astype(float) for i in range(20)]
    assert np.allclose([shifted_ndcg(one) for one in lists], report.per_query["ndcg"][:20], rtol=0, atol=1e-6)
    assert round(ndcg_score(target, cosines), 3) == .831 and round(report.ndcg, 3) == .826     # log2(i + 1), log2(i)
