"""What a notebook cannot show: a real kill, two real processes, the commands as a shell runs them."""
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from apse_nb.tools.checkpoint import read_checkpoint

ROOT = Path(__file__).parent.parent
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}

# A small training whose every step is checkpointed, so that a kill can fall anywhere.
TRAIN = """
import sys, torch
from apse_nb.emotions import MIKELS
from apse_nb.network import APSE
from apse_nb.pair_losses import EmotionPairLoss
from apse_nb.scenes import make_scenes
from apse_nb.training import Recipe, fit
torch.manual_seed(0)
model = APSE(MIKELS, backbone="scene_net", weights="shapes", dim=32)
fit(model, make_scenes(160, size=32, seed=0, workers=1), Recipe.scenes(epochs=3, resize=32, crop=32), EmotionPairLoss(MIKELS),
    valid=make_scenes(40, size=32, seed=1, workers=1), out=sys.argv[1], checkpoint_seconds=0, progress=False)
"""


def run(code, *args, **kwargs):
    return subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True,
                          env=ONE_THREAD, **kwargs)


def test_killed_run_ends_with_the_same_weights(tmp_path):
    whole = run(TRAIN, tmp_path/"whole")
    assert whole.returncode == 0, whole.stderr[-1000:]
    process = subprocess.Popen([sys.executable, "-c", TRAIN, str(tmp_path/"cut")], env=ONE_THREAD)
    last = tmp_path/"cut"/"last.safetensors"
    deadline = time.monotonic() + 120
    while not (last.exists() and read_checkpoint(last)[1]["progress"]["step"] >= 6):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert read_checkpoint(last)[1]["progress"]["step"] < 15
    assert run(TRAIN, tmp_path/"cut").returncode == 0
    a, facts = read_checkpoint(tmp_path/"whole"/"last.safetensors")
    b, facts_cut = read_checkpoint(last)
    assert facts["progress"]["step"] == facts_cut["progress"]["step"] == 15
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    logs = [list(csv.DictReader(open(tmp_path/name/"log.csv"))) for name in ("whole", "cut")]
    assert [(r["epoch"], r["loss"], r["valid_map8"]) for r in logs[0]] == [(r["epoch"], r["loss"], r["valid_map8"])
                                                                           for r in logs[1]]


def test_ctrl_c_keeps_the_work_and_says_so_in_one_line(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "from apse_nb.report.commands import apse_train; apse_train()",
                                "scenes", "--out", str(tmp_path/"run"), "--method", "clb"],
                               env=ONE_THREAD, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen = ""
    while "step" not in seen:                      # the progress bar: training has begun
        seen += process.stderr.read(1)
        assert process.poll() is None, seen
    time.sleep(3)
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
if rank == 0: open(sys.argv[1], "w").write(json.dumps(dict(world=world, loss=run.log[-1]["loss"], map8=seen.report.map8, map2=seen.report.map2)))
"""


def test_two_processes_train_and_evaluate_like_one(tmp_path):
    script = tmp_path/"two.py"
    script.write_text(TWO)
    one = subprocess.run([sys.executable, script, tmp_path/"one.json"], env=ONE_THREAD, capture_output=True, text=True)
    assert one.returncode == 0, one.stderr[-1000:]
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
def test_wrong_words_are_answered_in_one_line(words, sentence, tmp_path):
    out = subprocess.run([sys.executable, "-c", f"from apse_nb.report.commands import {words[0]}; "
                          f"{words[0]}(prog_name='{words[0]}')", *words[1:]],
                         env=ONE_THREAD, capture_output=True, text=True, cwd=tmp_path)
    assert out.returncode == 2 and sentence in out.stderr
    assert out.stderr.strip().count("\n") == 0 and "Traceback" not in out.stderr, out.stderr