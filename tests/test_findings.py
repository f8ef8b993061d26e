"""Every number and verdict of README and chapter 13 is computed again, from data/results and in another way."""
import json
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from apse_nb.experiments import setup_of
from apse_nb.report import findings, page
from apse_nb.report.claims import CLAIMS
from apse_nb.report.html_page import report_page
from apse_nb.report.tables import find_profile, table1_controlled
from apse_nb.report.verdicts import MOSTLY, one_per_source

ROOT = Path(__file__).parent.parent
README = (ROOT/"README.md").read_text(encoding="utf-8")
CHAPTER = json.loads((ROOT/"nbs"/"13_reproduce.ipynb").read_text(encoding="utf-8"))
NUMBER = r"[+-]?\d*\.\d{3}"


def lines_of(name):
    "Lines of a results file, cleaned by hand: of the scenes the test images, of each row and seed the last line."
    lines = pd.read_csv(ROOT/"data"/"results"/f"{name}.csv", dtype=dict(data=str, setup=str))
    if name == "scenes_quick":
        lines = lines[(lines["data"] == lines["data"].value_counts().idxmax()) & lines["epochs"].isin([0, 8])]
    return lines[lines["status"] == "ok"].drop_duplicates(["name", "seed", "epochs"], keep="last")


def short(value, sign=False):
    return f"{value:{'+' if sign else ''}.3f}".replace("0.", ".", 1)


def gap_by_hand(name, row, base, measure):
    "Difference of two rows over their common seeds, and its interval, as the prose writes it."
    lines = lines_of(name)
    lines = lines[lines["epochs"] == 2] if name == "fi_cpu" else lines
    a, b = (lines[lines["name"] == n].set_index("seed")[measure] for n in (row, base))
    d = (a - b).dropna()
    if len(d) == 1:
        return f"{short(d.iloc[0], True)} (one seed)"
    low, high = stats.t.interval(.95, len(d) - 1, d.mean(), stats.sem(d))
    return f"{short(d.mean(), True)} ({short(low, True)} to {short(high, True)}, {len(d)} seeds)"


def fresh_by_hand(row, base, measure):
    "Difference over seeds and query sets with its crossed interval: the two-way table cell by cell."
    lines = pd.read_csv(ROOT/"data"/"results"/"query_luck_scenes.csv").set_index(["name", "seed", "query_set"])[measure]
    d = (lines[row] - lines[base]).unstack()
    (s, q), cells = d.shape, d.to_numpy()
    m = cells.mean()
    ma = q*sum((cells[i].mean() - m)**2 for i in range(s))/(s - 1)
    mb = s*sum((cells[:, j].mean() - m)**2 for j in range(q))/(q - 1)
    me = sum((cells[i, j] - cells[i].mean() - cells[:, j].mean() + m)**2
             for i in range(s) for j in range(q))/((s - 1)*(q - 1))
    total = max(ma + mb - me, ma, mb)
    df = total**2/(ma**2/(s - 1) + mb**2/(q - 1) + me**2/((s - 1)*(q - 1)))
    half = stats.t.ppf(.975, max(df, 1))*np.sqrt(total/(s*q))
    return f"{short(m, True)} ({short(m - half, True)} to {short(m + half, True)}, {s} seeds x {q} query sets)"


GAPS = [("projection", "fi_gpu", "concat_linear", "at_ep", "map8"),
        ("projection", "scenes_quick", "concat_linear", "ha", "map2"),
        ("product", "fi_gpu", "clb", "concat_linear", "map8"),
        ("product", "scenes_quick", "clb", "concat_linear", "map8"),
        ("gep", "fi_gpu", "gep", "clb", "map8"), ("gep", "fi_gpu", "gep", "clb", "map2"),
        ("gep", "scenes_quick", "gep", "clb", "map8"), ("gep", "scenes_quick", "gep", "clb", "map2"),
        ("inter", "scenes_quick", "gep_inter", "clb", "map8"), ("attention", "scenes_quick", "ha", "mo", "map8"),
        ("attention", "scenes_quick", "clb", "clb_no_attention", "map8"),
        ("eq1", "scenes_quick", "letter", "clb", "map8"),
        ("arcface", "scenes_quick", "c_arcface", "c_gep", "map8"), ("arcface", "fi_gpu", "strong", "clb", "map8"),
        ("arcface", "scenes_quick", "c_arcface", "c_clb", "map8"), ("projection", "fi_cpu", "ha", "at_ep", "map8"),
        ("length", "scenes_quick", "clb_sharp_root", "clb", "map8")]


@pytest.mark.parametrize("key, name, row, base, measure", GAPS)
def test_numbers_of_findings(key, name, row, base, measure):
    assert gap_by_hand(name, row, base, measure) in findings.by_key(key).text


@pytest.mark.parametrize("key, row, base, measure", [("gep", "gep", "clb", "map8"), ("gep", "gep", "clb", "map2"),
                                                     ("product", "clb", "concat_linear", "map8")])
def test_numbers_over_query_sets(key, row, base, measure):
    assert fresh_by_hand(row, base, measure) in findings.by_key(key).text


def test_query_sets_are_complete():
    "Every network of the crossed table was asked every set, and no set is a part of the data set."
    lines = pd.read_csv(ROOT/"data"/"results"/"query_luck_scenes.csv")
    for name, mine in lines.groupby("name"):
        assert len(mine) == mine["seed"].nunique()*10 == len(mine.drop_duplicates(["seed", "query_set"])), name
        assert mine["seed"].nunique() >= 3 and (mine["query_set"] > 100).all() and (mine["queries"] == 400).all()


def test_every_tuned_setting_lies_inside_its_grid():
    "Of each loss under equal conditions the best setting on validation images has a worse neighbour on either side."
    profile = find_profile("quick")
    lines = pd.read_csv(ROOT/"data"/"results"/"scenes_quick.csv", dtype=dict(data=str, setup=str))
    test = lines["data"].value_counts().idxmax()
    for name, candidates in table1_controlled().items():
        mine = lines.query("name == @name and data != @test and seed == 0").set_index("setup")["map8"]
        scores = [mine[setup_of(e, profile)] for e in candidates]
        assert 0 < np.argmax(scores) < len(scores) - 1, (name, scores)
        used = lines[(lines["name"] == name) & (lines["data"] == test)]
        assert set(used["setup"]) == {setup_of(candidates[int(np.argmax(scores))], profile)}, name


def wrong_cells(text):
    "Cells of the README's table of results that do not agree with the files."
    names = {"softmax": "softmax", "N-pair": "n_pair", "EP": "ep", "AT + EP": "at_ep", "AT + EP, MO, HA": "ha",
             "AT + EP, MO, HA, linear (control)": "concat_linear", "AT + EP, MO, HA, CLB": "clb",
             "AT + GEP, MO, HA, CLB": "gep", "CLB, tuned": "c_clb", "GEP, tuned": "c_gep",
             "ArcFace, tuned": "c_arcface", "cosine classifier (ours)": "strong"}
    table = text.split("| row |")[1].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert [row for row, *_ in cells] == list(names)
    wrong = []
    for row, photographs, scenes, _ in cells:
        for name, cell in (("fi_gpu", photographs), ("scenes_quick", scenes)):
            mine = lines_of(name).query("name == @names[@row]")
            expected = f"{short(mine['map8'].mean())} / {short(mine['map2'].mean())} ({len(mine)})" if len(mine) else ""
            wrong += [(row, name, cell, expected)]*(cell != expected)
    return wrong


def test_table_of_the_readme():
    assert wrong_cells(README) == []
    assert wrong_cells(README.replace(".451 / .802 (2)", ".452 / .802 (2)")) != []        # a typing mistake is found


def test_readme_says_what_the_files_say():
    judged, _, _ = findings.stored_verdicts()
    for text in (findings.findings_markdown(findings.HEADLINES, brief=True).replace("](", "](nbs/"),
                 findings.verdict_sentence(judged), findings.verdict_sentence(judged, "fi")):
        assert text in README
    typed = re.sub(r"\| row \|.*?\n\n|^\d\. .*?$", "", README, flags=re.S | re.M)         # without table and findings
    assert not re.findall(r"(?<![\d.])\.\d{3}\b", typed)


def test_mostly_is_said_in_the_same_words_everywhere():
    judged, compared, lines = findings.stored_verdicts()
    rules = (ROOT/"nbs"/"report"/"verdicts.ipynb").read_text(encoding="utf-8")
    summary = "".join("".join(c["source"]) for c in CHAPTER["cells"] if c["cell_type"] == "markdown")
    for text in (README, summary, outputs(71), page.claims_page(judged, compared, lines, "", "", ""), rules):
        assert MOSTLY in text


def test_readme_is_short():
    prose = re.sub(r"```.*?```|<!--.*?-->|\]\([^)]*\)|^\|.*?$", " ", README, flags=re.S | re.M)   # no code, no table
    assert len(re.findall(r"\S*\w\S*", prose)) <= 900
    assert len(re.findall(r"^[| -]*---[| -]*$", README, flags=re.M)) == 1                            # one table
    assert "<!-- main command -->" in README and "<!-- test command -->" in README


def outputs(number):
    "All Markdown that a cell of chapter 13 shows."
    cell = next(c for c in CHAPTER["cells"] if c["id"] == f"13-reproduce-{str(number).zfill(3)}")
    return "\n".join("".join(o["data"].get("text/markdown", "")) for o in cell["outputs"] if "data" in o)


def test_chapter_13_says_what_the_files_say():
    judged, compared, lines = findings.stored_verdicts()
    summary = outputs(6)
    assert findings.verdict_sentence(judged) in summary and findings.verdict_summary(judged) in summary
    assert findings.findings_markdown(findings.HEADLINES) in summary
    assert outputs(75) == findings.findings_markdown()
    rows = ("softmax", "n_pair", "ep", "at_ep", "concat_linear", "clb", "gep", "strong")
    assert findings.markdown_table(findings.result_table(findings.results("fi_gpu"), rows)) in outputs(40)
    assert page.claims_table(judged) in outputs(71) and page.claims_table(judged, control=True) in outputs(71)
    for row, base in (("gep", "clb"), ("clb", "concat_linear"), ("sa", "mo"), ("ep", "n_pair"), ("n_pair", "softmax")):
        for measure in ("map8", "map2"):
            assert f"| {fresh_by_hand(row, base, measure).split(', ')[0]}) |" in outputs("050b"), (row, measure)
            assert f"| {gap_by_hand('scenes_quick', row, base, measure).split(', ')[0]}) |" in outputs("050b")
    assert fresh_by_hand("gep", "clb", "map8") in outputs("050b")
    for row, base, measure in [("c_arcface", "c_softmax", "map8"), ("c_gep", "c_softmax", "map8")]:
        assert gap_by_hand("scenes_quick", row, base, measure) in outputs(54)
    for row, base in (("clb_unmirrored", "clb"), ("gep_unmirrored", "gep"), ("softmax_two", "softmax")):
        assert gap_by_hand("scenes_quick", row, base, "map8") in outputs(58)
    assert re.findall(r"\d\.\d{4,}", outputs(28)) == []
    assert "N-pair" in outputs(32)
    for name, row, base, measure in {gap[1:] for gap in GAPS}:
        if name == "fi_gpu" and row != "strong":
            assert gap_by_hand(name, row, base, measure) in outputs(40)
    cores = set(lines_of("fi_cpu").query("epochs == 2")["name"])
    for row, base, cell in (("clb", "ha", 44), ("concat_linear", "ha", 44), ("clb", "concat_linear", 44),
                            ("gep", "clb", 44), ("c_n_pair", "n_pair", 46)):
        if {row, base, "concat_linear" if row == "gep" else row} <= cores:
            assert gap_by_hand("fi_cpu", row, base, "map8") in outputs(cell)


def test_chapter_13_types_no_result():
    prose = ["".join(c["source"]) for c in CHAPTER["cells"] if c["cell_type"] == "markdown"]
    assert not re.findall(r"(?<![\d.])0?\.\d{3}\b", " ".join(prose))


def test_tables_of_chapter_13():
    "Every mean of every stored table, by plain pandas."
    titles = {title: name for name, title in findings.row_titles().items()}
    checked = 0
    files = {40: "fi_gpu", 44: "fi_cpu", 50: "scenes_quick", 54: "scenes_quick", 56: "scenes_quick", 58: "scenes_quick"}
    for number, name in files.items():
        table = [line for line in re.split(r"\n(?!\|)", outputs(number))[0].splitlines() if line.startswith("| ")]
        heads = [cell.strip() for cell in table[0].strip("|").split("|")]
        for line in table[2:]:
            cell = dict(zip(heads, (c.strip() for c in line.strip("|").split("|"))))
            mine = lines_of(name)
            mine = mine[(mine["name"] == titles[cell["row"]]) & (mine["epochs"] == int(cell["epochs"]))]
            for head, measure in (("mAP8", "map8"), ("mAP2", "map2")):
                assert cell[head].split()[0] == short(mine[measure].mean()), (number, cell["row"])
                checked += 1
    assert checked > 90


def test_verdicts_again():
    "Verdicts on scenes: the contrast, its test and Holm's correction without the code that made them."
    judged, _, _ = findings.stored_verdicts()
    mine = one_per_source(judged).query("source == 'scenes' and ~control.astype('bool')").set_index("claim")
    over_seeds = mine[mine["p"].notna()]
    order = over_seeds["p"].sort_values()
    corrected = dict(zip(order.index, np.minimum(1, np.maximum.accumulate(order*np.arange(len(order), 0, -1)))))
    words = {}
    for claim in CLAIMS:
        if claim.key not in over_seeds.index:
            continue
        row = over_seeds.loc[claim.key]
        assert np.isclose(row["p_holm"], corrected[claim.key])
        if len(claim.contrast()) == 1 and not claim.margin and hasattr(claim.contrast()[0], "better"):
            c = claim.contrast()[0]
            a, b = (lines_of("scenes_quick").query("name == @n").set_index("seed")[c.measure] for n in c.rows)
            d = (a - b).dropna()
            assert np.isclose(row["difference"], d.mean()) and np.isclose(row["p"], stats.ttest_1samp(d, 0).pvalue)
        claimed, decided = row["difference"] > 0, corrected[claim.key] <= .05
        same, other = (row["shown"], row["against"])[::1 if claimed else -1]
        if decided and not other and (same > row["run"]/2 or not claimed):
            words[claim.key] = "reproduced" if claimed else "opposite"
        elif decided and (same > other or not claimed) or (row["p"] <= .05 and same > row["run"]/2):
            words[claim.key] = "mostly for" if claimed else "mostly against"
        else:
            words[claim.key] = "undecided"
    assert dict(over_seeds["verdict"]) == words and len(words) >= 20
    assert mine.loc["gep", "verdict"] == "mostly against" and mine.loc["metric_losses", "verdict"] == "mostly against"
    assert tuple(mine.loc["sa", ["shown", "against"]]) == (1, 1) and mine.loc["sa", "verdict"] == "undecided"


def test_sets_of_results_are_not_mixed():
    "A comparison never joins lines of different profiles, data or lengths."
    judged, compared, _ = findings.stored_verdicts()
    assert {"fi, 6 epochs, gpu" in name for name in compared["data_set"] if name.startswith("fi, 6")} == {True, False}
    sets = [set(zip(group["profile"], group["data"], group["epochs"])) for _, group in compared.groupby("data_set")]
    assert all(len(s) == 1 for s in sets) and not any(a & b for a, b in combinations(sets, 2))


def test_report_page_needs_no_internet(tmp_path):
    "One file with title, contents, summary first, alternative texts; no script, no code, no raw equations."
    text = re.sub(r"base64,[^\"]*", "", report_page(CHAPTER, tmp_path))
    assert "http" not in text and "<script" not in text and not re.search(r"\$[^$\n]{1,40}\$", text)
    images = re.findall(r"<img [^>]*>", text)
    assert len(images) >= 10 and all(re.search(r'alt="Figure: \w', image) for image in images)
    assert "run_rows(" not in text and "In [" not in text and ".ipynb" not in text
    assert re.findall(r'<li><a href="#section-\d+">(.*?)</a>', text)[0] == "Summary"
    assert text.count("<table>") == text.count('<div class="table"><table>') > 10         # wide tables scroll
