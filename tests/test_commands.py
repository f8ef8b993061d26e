"""What a user of apse_train and apse_evaluate relies on: honest numbers, settings that arrive, sentences."""
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import output_of as run

from apse_nb.emotions import EKMAN, MIKELS
from apse_nb.metrics import evaluate
from apse_nb.network import APSE
from apse_nb.report.commands import apse_evaluate, apse_train
from apse_nb.scenes import make_scenes, save_scenes
from apse_nb.training import Recipe, load_model, save_model

ROOT = Path(__file__).parent.parent
RECIPE = Recipe.scenes(epochs=1, resize=48, crop=40, images_per_class=2)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    "A folder with two parts of 32 images, a checkpoint that was trained on the first one, and a cache."
    folder = tmp_path_factory.mktemp("small")
    for part, seed in (("train", 1), ("val", 2)):
        save_scenes(make_scenes(32, size=48, seed=seed, workers=1), folder/"small"/part)
    torch.manual_seed(0)
    model = APSE(MIKELS, backbone="scene_net", weights="shapes", dim=16)
    from apse_nb.datasets.decoding import load_images
    train = load_images(str(folder/"small"), 48, "train", cache=folder/"cache")
    save_model(model, folder/"net.safetensors", train, recipe=asdict(RECIPE))
    return folder


def measures(text: str) -> list[str]:
    "The table of measures in a command's output."
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.split()[:1] == ["value"])
    return lines[first:first + 10]


def test_a_query_never_finds_itself(small, monkeypatch):
    "However the gallery is spelt, and although the queries are a part of it."
    monkeypatch.chdir(small)
    common = ("net.safetensors", "--cache", small/"cache", "--query", "small")
    honest = run(apse_evaluate, *common)
    assert "64 queries, 64 gallery images (each query searches the other ones)" in honest
    for spelling in ("small", f"{small}/small", "./small/../small"):
        assert measures(run(apse_evaluate, *common, "--gallery", spelling)) == measures(honest)
    shutil.copytree("small", "copied", dirs_exist_ok=True)
    assert measures(run(apse_evaluate, *common, "--gallery", "copied")) == measures(honest)
    part = run(apse_evaluate, *common, "--query-split", "val", "--gallery", f"{small}/small")
    assert "32 queries, 32 gallery images; 32 images of the gallery are queries too" in part
    assert measures(part) == measures(run(apse_evaluate, *common, "--query-split", "val", "--gallery-split", "train"))


def test_copies_among_the_queries_do_not_find_each_other(small, tmp_path):
    shutil.copytree(small/"small"/"val", tmp_path/"twice")
    common = (small/"net.safetensors", "--cache", small/"cache", "--query", tmp_path/"twice")
    once = run(apse_evaluate, *common)
    for n, image in enumerate(sorted((tmp_path/"twice"/"awe").iterdir())):
        shutil.copy(image, tmp_path/"twice"/"awe"/f"copy{n}.png")
    twice = run(apse_evaluate, *common)
    assert "4 copies of other queries are left out" in twice and measures(twice) == measures(once)


def test_images_that_the_network_was_trained_on_are_told(small):
    common = (small/"net.safetensors", "--cache", small/"cache", "--query", small/"small")
    assert "trained on 32 of the 32 queries" in run(apse_evaluate, *common, "--query-split", "train")
    assert "trained on 32 of the 64 queries" in run(apse_evaluate, *common)
    assert "trained on" not in run(apse_evaluate, *common, "--query-split", "val")


def test_a_run_keeps_its_split_and_tells_of_copies_among_the_queries(small, tmp_path):
    shutil.copytree(small/"small"/"train", tmp_path/"own"/"train")
    shutil.copytree(small/"small"/"val", tmp_path/"own"/"test")
    shutil.copy(next((small/"small"/"train"/"awe").iterdir()), tmp_path/"own"/"test"/"awe"/"copy.png")
    words = (tmp_path/"own", "--method", "clb", "--profile", "tiny", "--cache", small/"cache", "--out", tmp_path/"run",
             "--set", "resize=48", "--set", "crop=40", "--images-per-class", 2)
    assert "1 of 33 query images, such as test/awe/copy.png, are in the training part too" in run(apse_train, *words)
    kept = pd.read_csv(tmp_path/"run"/"split.csv")
    assert kept.split.value_counts().to_dict() == {"test": 33, "train": 32}
    assert (kept.image.str.split("/").str[2] == kept.split).all()                # ../own/train/awe/0.png
    assert "32 training images" in run(apse_train, tmp_path/"run"/"split.csv", *words[1:], "--out", tmp_path/"again")
    (tmp_path/"run"/"split.csv").write_text(kept.replace({"split": {"train": "test"}}).to_csv(index=False))
    assert "32 images, such as ../own/train/" in run(apse_train, *words)


def test_decoded_images_can_be_thrown_away(small, tmp_path):
    shutil.copytree(small/"cache", tmp_path/"cache")
    run(apse_evaluate, small/"net.safetensors", "--query", small/"small", "--cache", tmp_path/"cache")
    before = {place.name for place in (tmp_path/"cache").iterdir()}
    (tmp_path/"cache"/"mine").mkdir()
    (tmp_path/"cache"/"mine"/"progress.json").write_text("not the program's")
    out = run(apse_evaluate, small/"net.safetensors", "--query", small/"small", "--query-split", "val", "--cache",
              tmp_path/"cache", "--cache-clear")
    assert f"of {len(before)} data sets deleted" in out
    assert len(list((tmp_path/"cache").iterdir())) == 2 and (tmp_path/"cache"/"mine"/"progress.json").exists()


def test_anybodys_embeddings_are_measured(tmp_path):
    "Features with labels in the same order, and in another order with names, give what `evaluate` gives."
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(40, 6)).astype(np.float32), np.arange(40) % 7
    np.save(tmp_path/"f.npy", features)
    (tmp_path/"l.csv").write_text("label\n" + "\n".join(EKMAN.fine[k] for k in labels))
    shuffled = rng.permutation(40)
    pd.DataFrame(features[shuffled], index=[f"{i}.jpg" for i in shuffled]).to_csv(tmp_path/"f.csv", header=False)
    (tmp_path/"named.csv").write_text("\n".join(f"{i}.jpg,{EKMAN.fine[k]}" for i, k in enumerate(labels)))
    right = evaluate(features, labels, features, labels, EKMAN, same_set=True).frame().round(4)
    for words in (("f.npy", "l.csv"), ("f.csv", "named.csv")):
        out = run(apse_evaluate, "--features", tmp_path/words[0], "--labels", tmp_path/words[1], "--taxonomy", "ekman",
                  "--out", tmp_path/"table.csv")
        assert right.to_string() in out and "precision  recall  hit rate" in out
        assert np.allclose(pd.read_csv(tmp_path/"table.csv", index_col=0)["value"], right["value"], atol=1e-4)
    np.save(tmp_path/"some.npy", features[:7])
    (tmp_path/"some.csv").write_text("\n".join(EKMAN.fine[k] for k in labels[:7]))
    out = run(apse_evaluate, "--features", tmp_path/"some.npy", "--labels", tmp_path/"some.csv", "--features",
              tmp_path/"f.npy", "--labels", tmp_path/"l.csv", "--taxonomy", "ekman")
    assert "7 of the 40 gallery rows are rows of the queries too" in out
    assert "Unknown label" in run(apse_evaluate, "--features", tmp_path/"f.npy", "--labels", tmp_path/"l.csv", status=2)
    assert "once" in run(apse_evaluate, "--features", tmp_path/"f.npy", status=2)
    (tmp_path/"l.csv").write_text("a"*200_000)                       # more than Python's csv takes in one field
    assert "l.csv is not a table of texts" in run(apse_evaluate, "--features", tmp_path/"f.npy", "--labels",
                                                  tmp_path/"l.csv", status=2)


def test_a_row_without_a_label_is_no_row_less(tmp_path):
    "A spreadsheet's empty cells in the middle of the labels: four embeddings are not measured with five labels."
    np.save(tmp_path/"f.npy", np.eye(4))
    for text in ("name,label\na,fear\nb,fear\n,\nc,awe\nd,awe\n", 'fear\nfear\n""\nawe\nawe\n'):
        (tmp_path/"l.csv").write_text(text)
        assert "Unknown label ''" in run(apse_evaluate, "--features", tmp_path/"f.npy", "--labels", tmp_path/"l.csv",
                                         status=2)
    assert "There is no file of labels" in run(apse_evaluate, "--features", tmp_path/"f.npy", "--labels",
                                               tmp_path/"none.csv", status=2)


def test_a_table_goes_where_the_user_says(tmp_path):
    "Through a link, with the permissions that were there; a mistyped folder is not made."
    np.save(tmp_path/"f.npy", np.eye(4))
    (tmp_path/"l.csv").write_text("fear\nfear\nawe\nawe\n")
    words = ("--features", tmp_path/"f.npy", "--labels", tmp_path/"l.csv", "--out")
    (tmp_path/"table.csv").touch(0o600)
    (tmp_path/"link.csv").symlink_to("table.csv")
    run(apse_evaluate, *words, tmp_path/"link.csv")
    assert (tmp_path/"link.csv").is_symlink() and "map8" in (tmp_path/"table.csv").read_text()
    assert (tmp_path/"table.csv").stat().st_mode & 0o777 == 0o600
    for place in (tmp_path/"mistyped"/"table.csv", tmp_path):
        assert str(place) in run(apse_evaluate, *words, place, status=2)
    assert not (tmp_path/"mistyped").exists() and not list(tmp_path.glob("*apse_part"))


def test_embeddings_leave_with_their_names(small, tmp_path):
    run(apse_evaluate, small/"net.safetensors", "--cache", small/"cache", "--query", small/"small", "--query-split",
        "val", "--gallery-split", "train", "--export", tmp_path)
    for role in ("query", "gallery"):
        embeddings, names = np.load(tmp_path/f"{role}.npy"), pd.read_csv(tmp_path/f"{role}.csv")
        assert embeddings.shape == (32, 16) and np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
        assert list(names.columns) == ["name", "label"] and set(names["label"]) == set(MIKELS.fine)


def test_names_with_commas_leave_and_come_back(small, tmp_path):
    shutil.copytree(small/"small"/"val", tmp_path/"own")
    strange = 'a, "b"; c.png'
    next((tmp_path/"own"/"awe").iterdir()).rename(tmp_path/"own"/"awe"/strange)
    first = run(apse_evaluate, small/"net.safetensors", "--cache", small/"cache", "--query", tmp_path/"own", "--export",
                tmp_path)
    assert f"awe/{strange}" in set(pd.read_csv(tmp_path/"query.csv")["name"])
    again = run(apse_evaluate, "--features", tmp_path/"query.npy", "--labels", tmp_path/"query.csv")
    assert measures(again) == measures(first)


def test_own_emotions_from_a_file_travel_with_the_checkpoint(tmp_path):
    "Train on folders called by one's own words, then evaluate without saying them again."
    own = ("calm", "lively", "dull", "harsh")
    (tmp_path/"mine.json").write_text(json.dumps(dict(classes=dict(good=own[:2], bad=own[2:]))))
    for part, seed in (("train", 1), ("val", 2), ("test", 3)):
        save_scenes(make_scenes(32, size=48, seed=seed, workers=1), tmp_path/"scenes"/part)
        for emotion, word in zip(MIKELS.fine, own):
            shutil.copytree(tmp_path/"scenes"/part/emotion, tmp_path/"own"/part/word)
    words = ("--taxonomy", tmp_path/"mine.json", "--cache", tmp_path/"cache")
    out = run(apse_train, tmp_path/"own", "--method", "clb", "--profile", "tiny", "--out", tmp_path/"run", *words,
              "--set", "resize=48", "--set", "crop=40", "--images-per-class", 2, "--lr", 0.003)
    assert "16 training images" in out
    model, facts = load_model(tmp_path/"run"/"best.safetensors")
    assert model.taxonomy.fine == own
    assert facts["recipe"]["lr"] == 0.003 and facts["recipe"]["images_per_class"] == 2 and facts["recipe"]["crop"] == 40
    assert "16 queries" in run(apse_evaluate, tmp_path/"run"/"best.safetensors", "--query", tmp_path/"own",
                               "--query-split", "test", "--cache", tmp_path/"cache")


def test_fine_tuning_starts_from_the_checkpoint(small, tmp_path):
    "With a learning rate of nearly zero the fine-tuned network is still the one that it started from."
    common = (small/"small", "--profile", "tiny", "--cache", small/"cache", "--dim", 16, "--method", "clb",
              "--set", "resize=48", "--set", "crop=40", "--images-per-class", 2, "--lr", 1e-12)
    run(apse_train, *common, "--from", small/"net.safetensors", "--out", tmp_path/"tuned")
    start, tuned = (load_model(path)[0].state_dict() for path in (small/"net.safetensors",
                                                                  tmp_path/"tuned"/"best.safetensors"))
    assert all(torch.allclose(v, tuned[k], atol=1e-4) for k, v in start.items() if "running" not in k
               and "num_batches" not in k)
    setup = pd.read_csv(tmp_path/"tuned"/"results.csv", dtype=str)["setup"][0]
    run(apse_train, *common, "--out", tmp_path/"fresh")
    assert setup != pd.read_csv(tmp_path/"fresh"/"results.csv", dtype=str)["setup"][0]


@pytest.mark.parametrize("method, named", [("clb", "last.safetensors"), ("frozen", "best.safetensors")])
def test_the_named_network_is_the_one_that_was_measured(method, named, small, tmp_path):
    said = run(apse_train, small/"small", "--profile", "tiny", "--cache", small/"cache", "--dim", 16,
               "--method", method, "--set", "resize=48", "--set", "crop=40", "--images-per-class", 2, "--epochs", 3,
               "--lr", .05, "--out", tmp_path)
    assert f"measured: {'the network after the last step, ' if method == 'clb' else ''}{tmp_path/named}" in said
    found = measures(run(apse_evaluate, tmp_path/named, "--query", small/"small", "--query-split", "val",
                         "--gallery-split", "train", "--cache", small/"cache"))
    fine, coarse = (next(float(line.split()[1]) for line in found if line.startswith(m)) for m in ("map8", "map2"))
    line = pd.read_csv(tmp_path/"results.csv").iloc[0]
    assert [fine, coarse] == pytest.approx([line["map8"], line["map2"]], abs=1e-4)
    assert f"mAP {line['map8']:.3f} fine, {line['map2']:.3f} coarse" in said


@pytest.mark.parametrize("words, sentence", [
    (["--set", "speed=3"], "one of epochs, images_per_class"), (["--set", "lr=fast"], "--set lr takes float"),
    (["--set", "sampler=natural"], "needs several images of each class"),
    (["--from", "no.safetensors"], "no checkpoint"),
    (["--taxonomy", "colours"], "Unknown taxonomy"), (["--set", "crop=4000"], "does not fit"),
    (["--cache", "/proc/nowhere"], "--cache FOLDER"), (["--method", "gepp"], "choose one of frozen, softmax")])
def test_settings_that_cannot_be_are_one_sentence(words, sentence, tmp_path):
    out = run(apse_train, "scenes", "--profile", "tiny", "--out", tmp_path, *words, status=2)
    assert sentence in out and out.strip().count("\n") == 0


def test_the_shipped_network_goes_by_its_name_anywhere(tmp_path):
    "From another folder, without a home, in a process of its own."
    env = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME")}
    (tmp_path/"pandas.py").write_text("raise SystemExit('imported from the current directory')")
    code = "import sys; sys.path.pop(0); from apse_nb.report.commands import apse_evaluate; apse_evaluate()"
    save_scenes(make_scenes(16, size=48, seed=3, workers=1), tmp_path/"some")
    out = subprocess.run([sys.executable, "-c", code, "scenes", "--query", "some", "--cache", "cache"], cwd=tmp_path,
                         env=env | dict(PYTHONPATH=str(ROOT)), capture_output=True, text=True)
    assert out.returncode == 0 and "16 queries" in out.stdout, out.stderr
