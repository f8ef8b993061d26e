"""The figures for any taxonomy, and the small-set protocol on folders, interrupted and diverging."""
import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from apse_nb.report import folds as folds_module
from apse_nb.tools.files import data_path
from apse_nb.emotions import EKMAN, LabelledImages, MIKELS
from apse_nb.report.ceiling import ceiling_curve, figure_ceiling, needed_accuracy, simulated_scores
from apse_nb.report.figures import (
    embedding_map, figure7, figure8, figure9, figure_confidence, figure_reasons, first_results, judge_queries,
    pick_failures, typical_queries)
from apse_nb.report.folds import figure5, fine_tune_folds, fold_store, fold_summary, weights_digest
from apse_nb.metrics import evaluate
from apse_nb.datasets.decoding import load_images
from apse_nb.tools.run_state import Diverged
from apse_nb.training import Recipe, load_model, make_pair_loss

RECIPE = Recipe(epochs=1, resize=40, crop=36, lr=0.01, schedule="one_cycle")
START = data_path("weights/scenes_apse.safetensors")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def made_up(taxonomy, n=60, seed=0):
    "Images, unit vectors and scores that know a little about the labels."
    rng, labels = np.random.default_rng(seed), np.arange(n) % len(taxonomy)
    images = LabelledImages(rng.integers(0, 255, (n, 24, 24, 3), dtype=np.uint8), labels, taxonomy)
    embeddings, scores = (np.eye(len(taxonomy))[labels] + rng.normal(size=(n, len(taxonomy))) for _ in range(2))
    return images, embeddings, torch.from_numpy(scores)


@pytest.mark.parametrize("taxonomy", [MIKELS, EKMAN], ids=lambda t: t.name)
def test_figures_for_any_taxonomy(taxonomy):
    images, x, scores = made_up(taxonomy)
    reports = {name: evaluate(x + noise, images.labels, x, images.labels, taxonomy, same_set=False)
               for name, noise in (("a", 0), ("b", np.random.default_rng(1).normal(size=x.shape)))}
    shares = first_results(reports, images.labels, images.labels, taxonomy)
    assert np.allclose(shares.iloc[:, :3].sum(axis=1), 1)
    queries = typical_queries(reports, images.labels, taxonomy)
    assert [taxonomy.parent[images.labels[q]] for q in queries] == list(range(len(taxonomy.coarse)))
    fig = figure8(images, images, reports, queries, k=4)
    assert len(fig.axes) == len(queries)*(1 + 2*4)
    judged = judge_queries(reports["b"], images.labels, images.labels, taxonomy, scores)
    fig = figure9(images, images, reports["b"], judged, k=3)
    assert len(fig.axes) == 5*len(pick_failures(judged)) and judged.loc[pick_failures(judged), "failed"].all()
    fig, table = figure_reasons(judged)
    assert table["failures"].sum() == judged["failed"].sum() and "right" not in table.index
    fig, table = figure_confidence(judged, bins=4)
    assert table["queries"].sum() == len(images) and table["confidence"].is_monotonic_increasing
    fig, places = embedding_map(x, images.labels, taxonomy, method="pca")
    assert places["medoid"].sum() == len(taxonomy) and len(fig.legends[0].get_texts()) == len(taxonomy)
    for fig in map(plt.figure, plt.get_fignums()):
        assert fig.get_figwidth() <= 9


@pytest.mark.parametrize("levels", [("low", "high"), ("high",)])
def test_attention_figure(levels):
    images, _, _ = made_up(EKMAN)
    fig = figure7(images, {level: torch.rand(60, 1, 6, 6) for level in levels}, crop=20, chosen=[0, 1, 2])
    shown = [ax for ax in fig.axes if ax.images]
    assert len(shown) == 3*(1 + len(levels))


def test_figures_without_a_head_or_a_failure():
    images, x, _ = made_up(MIKELS)
    judged = judge_queries(evaluate(np.eye(8)[images.labels], images.labels, np.eye(8)[images.labels], images.labels,
                                    MIKELS), images.labels, images.labels, MIKELS)
    assert not judged["failed"].any() and pick_failures(judged) == []
    with pytest.raises(ValueError, match="No query failed"):
        figure_reasons(judged)
    with pytest.raises(ValueError, match="no confidence"):
        figure_confidence(judged)
    worse = judge_queries(evaluate(-x, images.labels, x, images.labels, MIKELS), images.labels, images.labels, MIKELS)
    fig, table = figure_reasons(worse)
    assert list(table.columns) == ["failures", "share of queries"]
    assert "head" not in worse and figure9(images, images, evaluate(-x, images.labels, x, images.labels, MIKELS),
                                           worse, queries=[0]) is not None


def test_ceiling_reaches_every_accuracy():
    labels = np.arange(700) % 7
    curve = ceiling_curve(simulated_scores(labels, EKMAN, 1.), labels, labels, EKMAN)
    assert curve["accuracy"].is_monotonic_increasing and curve["map8"].is_monotonic_increasing
    assert curve["accuracy"].iloc[-1] == 1 and abs(curve["map8"].iloc[-1] - 1) < 1e-9
    assert (curve["map8"] >= curve["accuracy"] - 1e-9).all()              # a query that is right scores 1
    assert 0 < needed_accuracy(curve, .743) < .743 and np.isnan(needed_accuracy(curve, .01))
    assert len(figure_ceiling({"one": curve}, {"here": (.5, .4, .8)}, dict(map8=.743)).axes) == 2


def write(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(path)


def artphoto(root):
    for c, name in enumerate(("amusement", "awe", "content", "excitement", "anger", "disgust", "fear", "sad")):
        for i in range(1 if name == "anger" else 5):
            write(root/"testImages_artphoto"/f"{name}_{i:04d}.png", 10*c + i)


def abstract(root):
    rows = ["'',Amusement,Anger,Awe,Content,Disgust,Excitement,Fear,Sad"]
    for i in range(32):
        write(root/"testImages_abstract"/f"{i}.png", i)
        rows.append(f"'{i}.png'," + ",".join(str(5 if (i if i > 2 else 2) % 8 == k else 1) for k in range(8)))
    (root/"ABSTRACT_groundTruth.csv").write_text("\n".join(rows))


def iapsa(root):
    for half, names in enumerate((("positive", "Amus Awe Cont Exci"), ("negative", "Angr Disg Fear Sadn"))):
        rows = ["Picture," + ",".join(f"{n}Mean" for n in names[1].split())]
        for i in range(16):
            write(root/f"{1000*(half + 1) + i}.jpg", 50*half + i)
            rows.append(f"{1000*(half + 1) + i}," + ",".join("5" if i % 4 == k else "1" for k in range(4)))
        (root/f"Mikels2005{names[0]}norms.csv").write_text("\n".join(rows))


def flickr_ldl(root):
    rows = ["image,amusement,awe,contentment,excitement,anger,disgust,fear,sadness"]
    for i in range(32):
        write(root/"images"/f"{i:04d}.webp", i)
        rows.append(f"{i:04d}.webp," + ",".join("7" if i % 8 == k else "0" for k in range(8)))
    (root/"votes.csv").write_text("\n".join(rows))


@pytest.mark.parametrize("make", [artphoto, abstract, iapsa, flickr_ldl])
def test_folders_of_small_sets(tmp_path, make):
    make(tmp_path/"data")
    images = load_images(str(tmp_path/"data"), 40, cache=tmp_path/"cache")
    said = []
    folds = fine_tune_folds(START, images, RECIPE, make_pair_loss("gep", MIKELS, 128), folds=2, out=tmp_path/"out",
                            name=make.__name__, report=said.append)
    assert folds["queries"].sum() == len(images) and (folds["status"] == "ok").all() and folds["map8"].notna().all()
    if make is artphoto:
        # one image: never a pair, in either fold
        assert "anger (1)" in said[0] and set(folds["classes_not_trained"]) == {"anger"}
    fig, table = figure5({make.__name__: folds})
    assert len(table) == 4 and (table["folds"] == 2).all()


def test_a_stopped_run_goes_on(tmp_path):
    images, _, _ = made_up(MIKELS, 48)
    images = LabelledImages(np.repeat(np.repeat(images.pixels, 2, 1), 2, 2)[:, :40, :40], images.labels, MIKELS)
    model = load_model(START)[0]
    before, run = weights_digest(model), lambda out, report: fine_tune_folds(model, images, RECIPE,
                                                                             make_pair_loss("n_pair", MIKELS, 128),
                                                                             folds=3, out=out, report=report)
    def stop(text):
        if text.startswith("fold 1"):
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path/"a", stop)
    assert list(fold_store(tmp_path/"a"/"folds.csv").frame()["fold"]) == [0, 1]
    said = []
    resumed, whole = run(tmp_path/"a", said.append), run(None, said.append)
    assert said[:2] == ["fold 0: finished already", "fold 1: finished already"] and weights_digest(model) == before
    columns = ["fold", "queries", "training_images", "map8", "own_map8", "before_map2", "floor_map8", "query_accuracy"]
    pd.testing.assert_frame_equal(resumed[columns], whole[columns], check_dtype=False)
    assert len(run(tmp_path/"a", said.append)) == 3


def test_a_fold_that_diverges_is_recorded(tmp_path, monkeypatch):
    images, _, _ = made_up(MIKELS, 48)
    images = LabelledImages(np.repeat(np.repeat(images.pixels, 2, 1), 2, 2)[:, :40, :40], images.labels, MIKELS)
    def diverge(*_, **__):
        raise Diverged("no")
    monkeypatch.setattr(folds_module, "fit", diverge)
    said = []
    folds = fine_tune_folds(START, images, RECIPE, None, folds=2, out=tmp_path, report=said.append)
    assert list(folds["status"]) == ["diverged"]*2 and "diverged" in said[-1]
    assert folds["map8"].isna().all() and folds["before_map8"].notna().all()
    assert fold_summary(folds)["folds"].tolist() == [2, 0, 2, 0]


def test_too_few_pairs():
    images, _, _ = made_up(MIKELS, 8)
    images = LabelledImages(np.repeat(np.repeat(images.pixels, 2, 1), 2, 2)[:, :40, :40], images.labels, MIKELS)
    with pytest.raises(ValueError, match="No query has a gallery image|Fewer than two classes"):
        fine_tune_folds(START, images, RECIPE, None, folds=2, report=lambda text: None)