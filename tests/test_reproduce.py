"""The main job, as small as it gets: the command runs the final notebook; a second call repeats nothing."""
import configparser
import errno
import json
import os
import pkgutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import click
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from conftest import free_port, output_of
from PIL import Image

from apse_nb import experiments
from apse_nb.emotions import MIKELS
from apse_nb.experiments import has_test_part, open_parts, row_network, row_store, run_name, run_rows
from apse_nb.pair_losses import NPairLoss
from apse_nb.report.tables import find_profile, table2
from apse_nb.scenes import make_scenes, save_scenes
from apse_nb.tools.checkpoint import read_checkpoint
from apse_nb.tools.files import locked
from apse_nb.tools.work import core_count
from apse_nb.training import fit

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-c", "from apse_nb.report.commands import apse_reproduce; "
           "apse_reproduce(prog_name='apse_reproduce')", "--profile", "tiny"]


def test_tiny_report(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.run([*COMMAND, "--out", str(tmp_path/"report")], env=env, capture_output=True, text=True,
                           cwd=tmp_path)
    assert first.returncode == 0, first.stderr[-2000:] + first.stdout[-2000:]
    page = (tmp_path/"report"/"report.html").read_text(encoding="utf-8")
    assert "N-pair" in page and "data:image/png" in page
    store = pd.read_csv(tmp_path/"report"/"results.csv")
    assert {"frozen", "softmax", "n_pair", "gep"} <= set(store["name"]) and (store["status"] == "ok").all()
    assert store[["map8", "map2", "anmrr", "minutes", "commit", "seed"]].notna().all().all()
    names = {p.name for p in (tmp_path/"report").rglob("*")}
    assert {"table2.csv", "gains.csv", "localisation.csv", "table2.png", "attention.png", "failures.png"} <= names
    again = subprocess.run([*COMMAND, "--out", str(tmp_path/"report")], env=env, capture_output=True, text=True,
                           cwd=tmp_path)
    assert again.returncode == 0 and "4 of 4 rows are finished already" in again.stdout
    assert len(pd.read_csv(tmp_path/"report"/"results.csv")) == len(store)


def test_a_table_without_the_notebook(tmp_path):
    """--table trains, prints and writes the rows that were asked for; a failing row is told and tried again, the others
    are skipped."""
    words = ("--profile", "tiny", "--table", "2", "--table", "1", "--rows", "n_pair,hog", "--out", tmp_path/"out")
    assert "N-pair" in run("apse_reproduce", *words) and not (tmp_path/"out"/"report.html").exists()
    store = pd.read_csv(tmp_path/"out"/"results.csv")
    assert set(store["name"]) == {"n_pair", "hog"} and (store["status"] == "ok").all()
    # N-pair is a row of both tables and was trained once
    assert len(pd.read_csv(tmp_path/"out"/"tables"/"table_1.csv")) == 2
    assert "2 of 2 rows are finished already" in run("apse_reproduce", *words)
    assert len(pd.read_csv(tmp_path/"out"/"results.csv")) == 2


class PowerCut(NPairLoss):
    "Works three times."
    calls = 0
    def _get_name(self):
        return "NPairLoss"      # the settings of the row
    def forward(self, embeddings, labels):
        self.calls += 1
        if self.calls == 4:
            raise RuntimeError("the lights went out")
        return super().forward(embeddings, labels)


def test_query_sets_are_measured_once(tmp_path):
    "--query-sets asks every trained network every fresh set; a second call adds nothing; folders are refused."
    from apse_nb.report.commands import apse_reproduce
    command = ["--profile", "tiny", "--table", "2", "--rows", "n_pair", "--out", str(tmp_path), "--query-sets"]
    for sets, lines in (("2", 2), ("3", 3), ("3", 3)):
        done = CliRunner().invoke(apse_reproduce, [*command, sets], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        found = pd.read_csv(tmp_path/"query_luck.csv")
        assert len(found) == lines == found["query_set"].nunique() and (found["status"] == "ok").all()
        assert found["finished"].notna().all()
    refused = CliRunner().invoke(apse_reproduce, ["--query-sets", "3"])
    assert refused.exit_code == 2 and "--table" in refused.output


def test_a_row_cut_off_half_way_goes_on(tmp_path):
    profile, row = find_profile("tiny"), table2()["n_pair"]
    train, _ = open_parts("scenes", profile)
    cut = tmp_path/"cut"/"runs"/run_name(row, profile, 0)
    with pytest.raises(RuntimeError, match="lights"):
        fit(row_network(row, profile, MIKELS, 0), train, profile.recipe, PowerCut(), out=cut, checkpoint_seconds=0,
            progress=False)
    assert read_checkpoint(cut/"last.safetensors")[1]["progress"]["step"] == 3
    lines = [run_rows({"n_pair": row}, profile, "scenes", tmp_path/place, workers=1, report=lambda text: None)
             for place in ("cut", "whole")]
    assert lines[0]["map8"].tolist() == lines[1]["map8"].tolist() and not (cut/"last.safetensors").exists()


def test_an_older_store_gets_the_new_columns(tmp_path):
    (tmp_path/"results.csv").write_text("name,status,setup,data,seed,map8\nclb,ok,1234e567,a-b,0,0.41250\n")
    store = row_store(tmp_path/"results.csv")
    store.add(dict(name="gep", status="failed", setup="1", data="a-b", seed=0, remark="no weights"))
    assert store.has(name="clb", setup="1234e567", data="a-b", seed=0)
    assert not store.has(name="gep", setup="1", data="a-b", seed=0)      # failed is not finished
    assert "0.41250" in (tmp_path/"results.csv").read_text() and store.frame()["remark"].tolist()[1] == "no weights"


def test_full_disk_keeps_the_store(tmp_path, monkeypatch):
    store = row_store(tmp_path/"results.csv")
    store.add(dict(name="clb", status="ok", setup="1234e567", data="a-b", seed=0, commit="12345678"))

    def no_space(*args):
        raise OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as m:
        m.setattr(os, "fsync", no_space)
        with pytest.raises(OSError):
            store.add(dict(name="gep", status="ok", setup="1234e568", data="a-b", seed=0))
    assert len(store.frame()) == 1 and store.has(name="clb", setup="1234e567", data="a-b", seed=0)
    assert not store.has(name="gep", setup="1234e568", data="a-b", seed=0)
    store.add(dict(name="gep", status="ok", setup="1234e568", data="a-b", seed=0))
    assert store.has(name="clb", setup="1234e567", data="a-b", seed=0)
    assert store.has(name="gep", setup="1234e568", data="a-b", seed=0)


PARENT = """
import os, signal, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from apse_nb.experiments import _start_worker
if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_start_worker)
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 600)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def is_alive(pid: int) -> bool:
    "Does a process of this number run (and is not a zombie that nobody has collected)?"
    try:
        os.kill(pid, 0)
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self").exists()      # gone meanwhile, or a system without /proc


def test_workers_end_with_a_killed_parent(tmp_path):
    (tmp_path/"parent.py").write_text(PARENT)
    # files, not pipes: a worker that lives on would hold a pipe open and make this test wait for it
    with open(tmp_path/"out", "w") as out:
        subprocess.run([sys.executable, tmp_path/"parent.py"], env={**os.environ, "PYTHONPATH": str(ROOT)},
                       stdout=out, timeout=120)
    worker = int((tmp_path/"out").read_text())
    deadline = time.monotonic() + 30
    while is_alive(worker):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_only_a_missing_test_part_is_replaced(tmp_path):
    for part in ("train", "val"):
        for emotion in MIKELS.fine:
            (tmp_path/"data"/part/emotion).mkdir(parents=True)
            for n in range(2):
                Image.new("RGB", (40, 40), (30*n, 60,
                                            len(emotion)*9)).save(tmp_path/"data"/part/emotion/f"{part}{n}.png")
    profile = replace(find_profile("tiny"), recipe=replace(find_profile("tiny").recipe, resize=32, crop=32))
    _, query = open_parts(str(tmp_path/"data"), profile, cache=tmp_path/"cache")
    assert all("val" in name for name in query.names)
    for emotion in MIKELS.fine:
        (tmp_path/"data"/"test"/emotion).mkdir(parents=True)
        (tmp_path/"data"/"test"/emotion/"broken.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="can be read"):
        open_parts(str(tmp_path/"data"), profile, cache=tmp_path/"cache")
    assert has_test_part(str(tmp_path/"data"))           # asked of the names: nothing is decoded


def command(name: str):
    "A command of this package, found where settings.ini says."
    words = configparser.ConfigParser(delimiters=["="])
    words.read(ROOT/"settings.ini")
    places = dict(word.split("=") for word in words["DEFAULT"]["console_scripts"].split())
    return pkgutil.resolve_name(places[name])


def run(name: str, *words) -> str:
    return output_of(command(name), *words)


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    "Three drawn scenes of each emotion, as files in class folders."
    folder = tmp_path_factory.mktemp("album")
    save_scenes(make_scenes(24, size=64, seed=7, workers=1), folder)
    return folder


@pytest.fixture
def explored(monkeypatch):
    "The pages that apse_explore would serve, made in this process."
    pages = []

    def make_page(notebook, *_):
        *start, last = nbformat.read(notebook, 4).cells[0].source.splitlines()
        names = {}
        exec("\n".join(start), names)
        pages.append(eval(last, names))
        pages[-1].load()
    monkeypatch.setattr("apse_nb.widgets.server.serve_page", make_page)
    return pages


SMALL = ("--profile", "tiny", "--set", "resize=48", "--set", "crop=40")


@pytest.mark.parametrize("method", ["strong", "wscnet", "adml", "yang"])
def test_every_command_takes_every_network(method, album, explored, tmp_path):
    cache = ("--cache", tmp_path/"cache")
    run("apse_train", "scenes", "--method", method, *SMALL, "--out", tmp_path/"run", *cache)
    store, best = pd.read_csv(tmp_path/"run"/"results.csv"), tmp_path/"run"/"best.safetensors"
    assert store["name"].tolist() == [method] and store[["map8", "own_map8", "anmrr"]].notna().all().all()
    assert "is finished" in run("apse_train", "scenes", "--method", method, *SMALL, "--out", tmp_path/"run", *cache)
    assert "24 queries" in run("apse_evaluate", best, "--query", album, *cache)
    run("apse_index", album, "--model", best, "--index", tmp_path/"index")
    found = json.loads(run("apse_search", album/"awe"/next((album/"awe").iterdir()).name, "--index", tmp_path/"index",
                           "--k", 3, "--json", "-"))
    assert found
    said = run("apse_explore", album, "--model", best, "--index", tmp_path/"index", "--port", free_port())
    assert "24 images, 0 files skipped" in said and "Open this address" in said
    head, tabs = explored[0].children
    assert "24 images of" in head.words and len(tabs.children) >= 3


def test_train_and_reproduce_write_the_same_line(tmp_path):
    "One road: the same row, settings, images and number of threads give the same line."
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run("apse_train", "scenes", "--method", "clb", "--profile", "tiny", "--out", tmp_path/"run")
    finally:
        torch.set_num_threads(threads)
    lines = run_rows({"clb": table2()["clb"]}, find_profile("tiny"), "scenes", tmp_path/"out", workers=core_count(),
                     report=lambda text: None)
    mine, same = pd.read_csv(tmp_path/"run"/"results.csv"), ["name", "data", "setup", "seed", "epochs", "map8", "map2",
                                                            "own_map8", "nn", "query_accuracy", "train_accuracy"]
    assert mine[same].astype(str).values.tolist() == lines[same].astype(str).values.tolist()


def test_a_killed_worker_fails_its_row_and_no_other(tmp_path, monkeypatch):
    "The system ends the process of one row; the other rows are run by a new one."
    profile, rows = find_profile("tiny"), {name: table2()[name] for name in ("n_pair", "softmax")}
    said, killed = [], []
    submit = experiments.ProcessPoolExecutor.submit

    def deadly(pool, function, experiment, *args):
        future = submit(pool, function, experiment, *args)
        if experiment.name == "n_pair" and not killed:
            killed.append(True)
            while not pool._processes:
                time.sleep(.01)
            for process in list(pool._processes.values()):
                process.kill()
        return future
    monkeypatch.setattr(experiments.ProcessPoolExecutor, "submit", deadly)
    lines = run_rows(rows, profile, "scenes", tmp_path, workers=1, report=said.append)
    assert dict(zip(lines["name"], lines["status"])) == {"n_pair": "failed", "softmax": "ok"}
    assert "ended from outside" in lines.set_index("name").loc["n_pair", "remark"]
    lines = run_rows(rows, profile, "scenes", tmp_path, workers=1, report=said.append)
    assert dict(zip(lines["name"], lines["status"])) == {"n_pair": "ok", "softmax": "ok"}


@pytest.mark.parametrize("lock", [".apse_reproduce.lock", "lock"])
def test_the_second_into_one_folder_waits_and_says_so(lock, tmp_path, monkeypatch):
    "Another apse_reproduce (or another filler of its store) has the folder: one line says so, then it goes on."
    out, waiting, said, echo = tmp_path/"out", threading.Event(), [], click.echo

    def listen(text="", *args, **kwargs):
        said.append(str(text))
        if "waiting for its end" in said[-1]:
            waiting.set()
        echo(text, *args, **kwargs)
    monkeypatch.setattr(click, "echo", listen)
    with ThreadPoolExecutor(1) as pool:
        with locked(out/lock):
            second = pool.submit(CliRunner().invoke, command("apse_reproduce"), [
                "--profile", "tiny", "--table", "1", "--rows", "hog", "--out", str(out)])
            assert waiting.wait(60), said
            time.sleep(.5)
            assert not second.done() and not (out/"results.csv").exists()
        result = second.result(120)
    assert result.exit_code == 0 and "HOG" in result.output, result.output
    assert sum("another" in text for text in said) == 1 and len(pd.read_csv(out/"results.csv")) == 1


def test_a_failed_row_is_an_exit_status(tmp_path):
    "A feature file that does not fit fails its row when its turn comes; the other row is measured, the status is 1."
    np.save(tmp_path/"mvso.npy", np.zeros((3, 4), np.float32))
    done = CliRunner().invoke(command("apse_reproduce"), [
        "--profile", "tiny", "--table", "1", "--rows", "mvso,hog", "--features", f"mvso={tmp_path/'mvso.npy'}",
        "--out", str(tmp_path/"out")])
    assert done.exit_code == 1 and "HOG" in done.output and "mvso: 1 of 1 runs failed" in done.output


def test_the_notebook_runs_in_this_python_or_the_reason_is_one_sentence(tmp_path, monkeypatch):
    "A kernel python3 that belongs to another Python is not used; one that does not start is no traceback."
    from jupyter_client.kernelspec import KernelSpecManager
    from apse_nb.tools.work import own_kernel
    foreign = tmp_path/"kernels"/"python3"
    foreign.mkdir(parents=True)
    (foreign/"kernel.json").write_text(json.dumps(dict(argv=["false"], display_name="Python 3", language="python")))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    with own_kernel():
        assert KernelSpecManager().get_kernel_spec("python3").argv[0] == sys.executable
    monkeypatch.setattr(sys, "executable", "/bin/false")
    done = CliRunner().invoke(command("apse_reproduce"), ["--profile", "tiny", "--out", str(tmp_path/"out"), "--cache",
                                                          str(tmp_path/"cache")])
    assert done.exit_code == 2 and "process did not start" in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_rows_need_the_core_requirements_only():
    "scikit-learn, scikit-image and matplotlib come with extras: running a row must not load them."
    code = ("import sys; import apse_nb.experiments, apse_nb.report.commands; "
            "print({'sklearn', 'skimage', 'pytorch_metric_learning', 'matplotlib'} & set(sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "set()", done.stdout + done.stderr
