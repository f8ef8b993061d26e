"""What a notebook cannot show: a real kill, two real processes, the commands as a shell runs them."""
import csv
import functools
import json
import multiprocessing
import os
import random
import runpy
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from apse_nb.report import commands
from apse_nb.tools.checkpoint import read_checkpoint, write_checkpoint

ROOT = Path(__file__).parent.parent
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}

def small_training(out) -> None:
    "A small training whose every step is checkpointed, so that a kill can fall anywhere; in a process of its own."
    from apse_nb.emotions import MIKELS
    from apse_nb.network import APSE
    from apse_nb.pair_losses import EmotionPairLoss
    from apse_nb.scenes import make_scenes
    from apse_nb.training import Recipe, fit
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = APSE(MIKELS, backbone="scene_net", weights="shapes", dim=32)
    fit(model, make_scenes(160, size=32, seed=0, workers=1), Recipe.scenes(epochs=3, resize=32, crop=32),
        EmotionPairLoss(MIKELS), valid=make_scenes(40, size=32, seed=1, workers=1), out=out,
        checkpoint_seconds=0, progress=False)


@pytest.fixture
def processes(monkeypatch):
    "Processes that are forked from one that has imported everything once, on the CPU."
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["apse_nb.training", "apse_nb.scenes", "apse_nb.pair_losses", "torch._dynamo"])
    return context


def test_killed_run_ends_with_the_same_weights(tmp_path, processes):
    whole, cut, resumed = (processes.Process(target=small_training, args=(tmp_path/name,))
                           for name in ("whole", "cut", "cut"))
    whole.start()
    whole.join()
    cut.start()
    last = tmp_path/"cut"/"last.safetensors"
    deadline = time.monotonic() + 120
    while not (last.exists() and read_checkpoint(last)[1]["progress"]["step"] >= 6):
        assert time.monotonic() < deadline and cut.is_alive()
        time.sleep(0.02)
    cut.kill()
    cut.join()
    assert read_checkpoint(last)[1]["progress"]["step"] < 15
    resumed.start()
    resumed.join()
    assert (whole.exitcode, cut.exitcode, resumed.exitcode) == (0, -signal.SIGKILL, 0)
    a, facts = read_checkpoint(tmp_path/"whole"/"last.safetensors")
    b, facts_cut = read_checkpoint(last)
    assert facts["progress"]["step"] == facts_cut["progress"]["step"] == 15
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    logs = [list(csv.DictReader(open(tmp_path/name/"log.csv"))) for name in ("whole", "cut")]
    assert [(r["epoch"], r["loss"], r["valid_map8"]) for r in logs[0]] == [(r["epoch"], r["loss"], r["valid_map8"])
                                                                           for r in logs[1]]


def test_ctrl_c_keeps_the_work_and_says_so_in_one_line(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "from apse_nb.report.commands import apse_train; apse_train()",
                                "scenes", "--out", str(tmp_path/"run"), "--method", "clb", "--profile", "tiny",
                                "--epochs", "99", "--cache", str(tmp_path/"cache")],
                               env=ONE_THREAD, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen = ""
    while "step" not in seen:                      # the progress bar: training has begun
        seen += process.stderr.read(1)
        assert process.poll() is None, seen
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in rest
    assert (tmp_path/"run"/"last.safetensors").exists()


TWO = """
import json, sys, torch
from apse_nb.emotions import MIKELS
from apse_nb.network import APSE
from apse_nb.negatives import GeneratedEmotionPairLoss
from apse_nb.scenes import make_scenes
from apse_nb.training import Recipe, assess, fit
torch.manual_seed(0)
images = make_scenes(160, size=32, seed=0, workers=1)
model = APSE(MIKELS, backbone="scene_net", weights="shapes", dim=32, frozen_bn=True)
recipe = Recipe.scenes(epochs=2, resize=32, crop=32, lr=0.01)
run = fit(model, images, recipe, GeneratedEmotionPairLoss(MIKELS), progress=False)
seen = assess(model, images, images, recipe)
rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
if rank == 0:
    measured = dict(world=world, loss=run.log[-1]["loss"], map8=seen.report.map8, map2=seen.report.map2)
    open(sys.argv[1], "w").write(json.dumps(measured))
"""


def run_script(*words) -> None:
    sys.argv = [str(word) for word in words]
    runpy.run_path(sys.argv[0])


def test_two_processes_train_and_evaluate_like_one(tmp_path, processes):
    script = tmp_path/"two.py"
    script.write_text(TWO)
    one = processes.Process(target=run_script, args=(script, tmp_path/"one.json"))
    one.start()
    one.join()
    assert one.exitcode == 0
    two = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
                          script, tmp_path/"two.json"], env=ONE_THREAD, capture_output=True, text=True)
    assert two.returncode == 0, two.stderr[-2000:]
    a, b = (json.loads((tmp_path/name).read_text()) for name in ("one.json", "two.json"))
    assert (a["world"], b["world"]) == (1, 2)
    assert a["loss"] == pytest.approx(b["loss"], abs=1e-3)
    assert a["map8"] == pytest.approx(b["map8"], abs=5e-3) and a["map2"] == pytest.approx(b["map2"], abs=5e-3)


def test_full_disk_while_writing_a_checkpoint_keeps_the_old_one(tmp_path, monkeypatch):
    import apse_nb.tools.checkpoint as checkpoint
    import safetensors.torch
    checkpoint.write_checkpoint(tmp_path/"c.safetensors", {"x": torch.zeros(3)}, dict(step=1))

    def no_space(*args, **kwargs):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(safetensors.torch, "save_file", no_space)
    with pytest.raises(OSError, match="free some space"):
        checkpoint.write_checkpoint(tmp_path/"c.safetensors", {"x": torch.ones(3)}, dict(step=2))
    assert read_checkpoint(tmp_path/"c.safetensors")[1] == dict(step=1)
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


@pytest.mark.parametrize("words, sentence", [
    (["apse_train", "no/such/folder"], "no/such/folder"),
    (["apse_train", "scenes", "--method", "tripel"], "choose one of frozen, softmax"),
    (["apse_evaluate", "none.safetensors", "--query", "scenes"], "There is no checkpoint none.safetensors"),
    (["apse_reproduce", "--rows", "tripel"], "Unknown row 'tripel'"),
    (["apse_reproduce", "--data", "no/such/folder", "--profile", "cpu"], "There is no folder no/such/folder"),
])
def test_wrong_words_are_answered_in_one_line(words, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = CliRunner().invoke(getattr(commands, words[0]), words[1:], prog_name=words[0])
    assert out.exit_code == 2 and sentence in out.stderr
    assert out.stderr.strip().count("\n") == 0 and "Traceback" not in out.stderr, out.stderr


NAMED = [("network", []), ("recipe.resize", 1e6), ("network.dim", 10**8), ("recipe.lr", float("nan")), ("network", 1)]


def places(facts, at=()) -> list[tuple]:
    "Every place in nested facts, as the keys that lead there."
    inside = facts.items() if isinstance(facts, dict) else enumerate(facts) if isinstance(facts, list) else ()
    return [at]*(at != ()) + [place for key, value in inside for place in places(value, (*at, key))]


def changed(facts: dict, place: tuple, kind: float, value) -> dict:
    "The same facts with the value at this place renamed (kind < .15), left out (kind < .25) or replaced."
    facts = json.loads(json.dumps(facts))
    *way, key = place
    inside = functools.reduce(lambda found, k: found[k], way, facts)
    if kind < .15 and isinstance(inside, dict):
        inside[f"{key}_"] = inside.pop(key)
    elif kind < .25:
        del inside[key]
    else:
        inside[key] = value
    return facts


@pytest.mark.parametrize("many", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_tampered_checkpoints_are_one_sentence(many, tmp_path, monkeypatch):
    """Changed files load, or are refused in one sentence; none is a traceback or asks for much memory. One change at
    every place, or 900."""
    from apse_nb.emotions import MIKELS
    from apse_nb.methods.systems import WSCNet
    from apse_nb.network import APSE
    from apse_nb.training import Recipe, load_model, save_model
    monkeypatch.setattr(os, "fsync", lambda file: None)
    for name in ("kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_", "xavier_uniform_", "trunc_normal_"):
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, *args, **kwargs: tensor)      # they are read anyway
    rng, path = random.Random(0), tmp_path/"c.safetensors"
    models, whole = [APSE(MIKELS, backbone="scene_net", dim=16), WSCNet(MIKELS, backbone="scene_net")], []
    for model in models:
        save_model(model, path, recipe=asdict(Recipe.scenes()), row=dict(map8=.5))
        whole.append(read_checkpoint(path))
    odd = [None, [], {}, "", "x", -1, 0, 10**8, 1e300, True, [[]], {"a": 1}, "∞"*50]
    todo = [(n % 2, place, rng.random(), rng.choice(odd)) for n in range(2) for place in places(whole[n][1])]
    if many:
        every = [places(facts) for _, facts in whole]
        todo = [(n % 2, rng.choice(every[n % 2]), rng.random(), rng.choice(odd)) for n in range(900)]
    todo += [(0, tuple(place.split(".")), 1, value) for place, value in NAMED]
    refused = 0
    for n, place, kind, value in todo:
        tensors, facts = whole[n]
        write_checkpoint(path, tensors, changed(facts, place, kind, value))
        try:
            _, facts = load_model(path)
            Recipe(**facts.get("recipe", {}))
        except (ValueError, FileNotFoundError) as e:
            refused += 1
            assert "\n" not in str(e) and len(str(e)) < 900, str(e)
    assert refused > len(todo)/2


def test_flipped_bits_do_not_load(tmp_path):
    "A bit that has flipped anywhere in a checkpoint's numbers is noticed."
    from apse_nb.emotions import MIKELS
    from apse_nb.network import APSE
    from apse_nb.training import load_model, save_model
    path, rng = tmp_path/"c.safetensors", random.Random(0)
    save_model(APSE(MIKELS, backbone="scene_net", dim=16), path)
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(100):
        damaged, place = bytearray(whole), rng.randrange(start, len(whole))
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is damaged"):
            load_model(path)


def test_a_checkpoint_is_read_while_a_training_replaces_it(tmp_path, monkeypatch):
    "safetensors opens a file twice; another one in its place in between is no damage."
    path, newer, open_again = tmp_path/"last.safetensors", tmp_path/"newer", torch.UntypedStorage.from_file
    write_checkpoint(path, dict(x=torch.zeros(9)), dict(step=1))
    write_checkpoint(newer, dict(x=torch.ones(9)), dict(step=2))

    def replaced_meanwhile(*args, **settings):
        if newer.exists():
            newer.replace(path)
        return open_again(*args, **settings)
    monkeypatch.setattr(torch.UntypedStorage, "from_file", replaced_meanwhile)
    tensors, facts = read_checkpoint(path)
    assert not newer.exists() and facts["step"] == 2 and (tensors["x"] == 1).all()


def test_a_run_goes_on_names_what_differs_and_keeps_strange_files(tmp_path):
    from apse_nb.emotions import MIKELS
    from apse_nb.network import APSE
    from apse_nb.pair_losses import NPairLoss
    from apse_nb.scenes import make_scenes
    from apse_nb.training import Recipe, fit
    images, out = make_scenes(80, size=32, seed=0, workers=1), tmp_path/"run"

    def train(**changes):
        recipe = Recipe.scenes(**dict(epochs=1, resize=32, crop=32, lr=.01) | changes)
        torch.manual_seed(0)
        model = APSE(MIKELS, backbone="scene_net", weights="shapes", dim=16)
        return fit(model, images, recipe, NPairLoss(), out=out, progress=False)
    out.mkdir()
    (out/"song.mp3.part").write_text("a browser's download")
    (out/"last.safetensors.1.apse_part").write_text("left by a kill")
    train(schedule="step")
    assert {p.name for p in out.iterdir()} >= {"song.mp3.part", "last.safetensors"}
    assert not (out/"last.safetensors.1.apse_part").exists()
    with pytest.raises(ValueError, match=r"another recipe \(lr: 0.01 there, 0.02 now\)"):
        train(schedule="step", lr=.02)
    more = train(schedule="step", epochs=2)                      # more epochs on a finished run
    assert [row["epoch"] for row in more.log] == [1, 2]
    out = tmp_path/"whole"
    whole = train(schedule="step", epochs=2)
    assert all(torch.equal(v, whole.model.state_dict()[k]) for k, v in more.model.state_dict().items())
    tensors, facts = read_checkpoint(out/"last.safetensors")
    write_checkpoint(out/"last.safetensors", tensors, facts | dict(progress=facts["progress"] | dict(model=1)))
    with pytest.raises(ValueError, match="progress .* has a field 'model'"):
        train(schedule="step", epochs=2)
    old = {k: v for k, v in facts["recipe"].items() if k not in ("mirror", "label_smoothing")}     # of an older version
    write_checkpoint(out/"last.safetensors", tensors, facts | dict(recipe=old))
    assert len(train(schedule="step", epochs=2).log) == 2


def test_a_loss_is_known_by_its_settings_also_another_authors(tmp_path):
    "ArcFace(5, 2) does not resume ArcFace(28.6, 64), although both print the same."
    from apse_nb.emotions import MIKELS
    from apse_nb.network import APSE
    from apse_nb.scenes import make_scenes
    from apse_nb.training import Recipe, fit
    from pytorch_metric_learning.losses import ArcFaceLoss
    images = make_scenes(80, size=32, seed=0, workers=1)

    def train(loss, epochs=1):
        torch.manual_seed(0)
        recipe = Recipe.scenes(epochs=epochs, resize=32, crop=32, lr=.01, schedule="step")
        model = APSE(MIKELS, backbone="scene_net", weights="shapes", dim=16)
        return fit(model, images, recipe, loss, out=tmp_path/"run", progress=False)
    train(ArcFaceLoss(8, 16, margin=28.6, scale=64))
    with pytest.raises(ValueError, match=r"another loss \(pair_loss.margin: .*, pair_loss.scale: 64 there, 2 now"):
        train(ArcFaceLoss(8, 16, margin=5, scale=2))
    assert len(train(ArcFaceLoss(8, 16, margin=28.6, scale=64), epochs=2).log) == 2
    tensors, facts = read_checkpoint(tmp_path/"run"/"last.safetensors")
    facts.pop("settings")                                        # a run of an older version
    write_checkpoint(tmp_path/"run"/"last.safetensors", tensors, facts)
    assert len(train(ArcFaceLoss(8, 16, margin=28.6, scale=64), epochs=3).log) == 3


def test_a_loss_that_was_used_goes_on(tmp_path):
    "The triplet loss's miner counts triplets: that is no other setting."
    from apse_nb.emotions import MIKELS
    from apse_nb.network import APSE
    from apse_nb.scenes import make_scenes
    from apse_nb.training import Recipe, fit, make_pair_loss
    images, loss = make_scenes(80, size=32, seed=0, workers=1), make_pair_loss("triplet", MIKELS, 16)
    for epochs in (1, 2, 3):
        recipe = Recipe.scenes(epochs=epochs, resize=32, crop=32, lr=.001, schedule="step")
        model = APSE(MIKELS, backbone="scene_net", weights="shapes", dim=16)
        assert len(fit(model, images, recipe, loss, out=tmp_path/"run", progress=False).log) == epochs


def test_an_emotion_with_one_image_is_named():
    from apse_nb.emotions import MIKELS
    from apse_nb.scenes import make_scenes
    from apse_nb.training import Recipe, epoch_batches
    images = make_scenes(16, size=32, seed=0, workers=1)
    alone = images.subset([i for i, label in enumerate(images.labels) if label != 6 or i < 8])
    assert alone.counts()[MIKELS.fine[6]] == 1
    with pytest.raises(ValueError, match=f"^{MIKELS.fine[6]} has 1 image"):
        epoch_batches(alone, Recipe.scenes(), 0)


class Disk:
    "Pixels that note which batch was asked for."
    def __init__(self, pixels):
        self.pixels, self.shape, self.ndim, self.dtype = pixels, pixels.shape, 4, pixels.dtype
        self.events, self.there = [], {first: threading.Event() for first in (0, 4, 8)}

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, batch):
        self.events.append(f"read {batch[0]}")
        self.there[batch[0]].set()
        return self.pixels[batch]


def test_one_batch_is_read_ahead_and_none_comes_out_of_turn():
    from apse_nb.scenes import make_scenes
    from apse_nb.tools.device import read_ahead
    images, batches = make_scenes(16, size=32, seed=0, workers=1), np.arange(12).reshape(3, 4)
    disk, cpu = Disk(images.pixels), torch.device("cpu")
    for batch, (pixels, labels) in zip(batches, read_ahead(replace(images, pixels=disk), batches, cpu)):
        if batch[0] < 8:
            assert disk.there[batch[0] + 4].wait(10)            # somebody else fetches the next one meanwhile
        disk.events.append(f"use {batch[0]}")
        assert np.array_equal(pixels, images.pixels[batch]) and np.array_equal(labels, images.labels[batch])
    assert disk.events == ["read 0", "read 4", "use 0", "read 8", "use 4", "use 8"]


def test_what_is_no_checkpoint_or_anothers_and_what_starts_afresh(tmp_path):
    from apse_nb.emotions import MIKELS
    from apse_nb.network import APSE
    from apse_nb.tools.checkpoint import put_weights
    from apse_nb.training import load_model, save_model, start_from
    small, other = (APSE(MIKELS, backbone="scene_net", dim=dim) for dim in (64, 32))
    save_model(small, tmp_path/"small.safetensors")
    (tmp_path/"text.safetensors").write_text("hello")
    for attempt, words in ((lambda: load_model(tmp_path/"text.safetensors"), "is not a checkpoint of apse_nb"),
                           (lambda: load_model(tmp_path/"nowhere.safetensors"), "There is no checkpoint"),
                           (lambda: put_weights(other, read_checkpoint(tmp_path/"small.safetensors")[0], "it"),
                            "it holds another architecture")):
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            attempt()
    fresh = start_from(other, tmp_path/"small.safetensors")       # the compaction starts from nothing
    assert fresh == ["pool.project_low.weight", "pool.project_high.weight", "pool.compact.weight"]


def test_a_run_that_has_lost_its_way_or_is_not_alone_says_so(tmp_path):
    from apse_nb.emotions import MIKELS
    from apse_nb.network import APSE
    from apse_nb.pair_losses import NPairLoss
    from apse_nb.scenes import make_scenes
    from apse_nb.tools.files import locked
    from apse_nb.tools.run_state import Diverged
    from apse_nb.training import Recipe, fit, make_pair_loss
    images = make_scenes(80, size=32, seed=0, workers=1)

    def train(**changes):
        torch.manual_seed(0)
        model = APSE(MIKELS, backbone="scene_net", weights="shapes", dim=16)
        recipe = Recipe.scenes(**dict(epochs=8, resize=32, crop=32) | changes)
        return fit(model, images, recipe, NPairLoss(), out=tmp_path/"run", progress=False)

    with pytest.raises(Diverged, match="lower the learning rate"):
        train(lr=1e3)
    with locked(tmp_path/"run"/"lock"), pytest.raises(ValueError, match="Another process is training into"):
        train()
    with pytest.raises(ValueError, match="Unknown pair loss 'quadruplet': choose one of n_pair, ep, gep"):
        make_pair_loss("quadruplet", MIKELS)
