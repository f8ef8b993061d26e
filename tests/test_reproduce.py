"""The main job, as small as it gets: the command runs the final notebook and leaves a report; a second call repeats nothing."""
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-c", "from apse_nb.experiments import apse_reproduce; apse_reproduce(prog_name='apse_reproduce')", "--profile", "tiny"]


def test_tiny_report(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.run([*COMMAND, "--out", str(tmp_path/"report")], env=env, capture_output=True, text=True, cwd=tmp_path)
    assert first.returncode == 0, first.stderr[-2000:] + first.stdout[-2000:]
    page = (tmp_path/"report"/"report.html").read_text(encoding="utf-8")
    assert "N-pair" in page and "data:image/png" in page
    store = pd.read_csv(tmp_path/"report"/"results.csv")
    assert {"frozen", "softmax", "n_pair", "gep"} <= set(store["name"]) and (store["status"] == "ok").all()
    assert store[["map8", "map2", "anmrr", "minutes", "commit", "seed"]].notna().all().all()
    names = {p.name for p in (tmp_path/"report").rglob("*")}
    assert {"table2.csv", "gains.csv", "localisation.csv", "table2.png", "attention.png", "failures.png"} <= names
    again = subprocess.run([*COMMAND, "--out", str(tmp_path/"report")], env=env, capture_output=True, text=True, cwd=tmp_path)
    assert again.returncode == 0 and "4 of 4 rows are finished already" in again.stdout
    assert len(pd.read_csv(tmp_path/"report"/"results.csv")) == len(store)
