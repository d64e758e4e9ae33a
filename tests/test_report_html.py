"""The HTML page of run directories written by hand: what it says, that it loads nothing, and is the same again."""

import base64
import hashlib
import html
import json
import re
import shlex
import sys

import numpy as np
import pytest
import torch
from test_report import DENSE, RECIPE, TICKET, TO_DO, make

from prunekit.cli.runs import report
from prunekit.errors import PruneKitError, RunError
from prunekit.files import write_json, write_tensors, write_text
from prunekit.report.charts import training
from prunekit.report.compare import write_comparison
from prunekit.report.html import html_page, write_html
from prunekit.report.pictures import scenes
from prunekit.report.results import read_results
from prunekit.store import read_recipe_file


def add_worst(run):
    """Picture another item as the worst, at the last stage and at the dense one."""
    image = torch.full((20, 20, 3), 200, dtype=torch.uint8)
    for name in (DENSE, TICKET):
        pictures = {f"blur/i1/{part}": image for part in ("input", "output", "target")}
        write_tensors(run / name / "done" / "worst.safetensors", pictures)


@pytest.fixture
def run(tmp_path):
    made = make(tmp_path / "toy-1234")
    add_worst(made)
    return made


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    made = make(tmp_path_factory.mktemp("runs") / "toy-1234")
    add_worst(made)
    return html_page(made)


def text(page):
    """Return what a reader sees: no scripts, styles, pictures or tags."""
    bare = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", bare))


def test_page_says_what_was_kept_what_it_costs_and_what_it_gains(page):
    seen = text(page)
    for words in (
        "toy-1234 two tensors",
        f"Unfinished: still to be done: {TO_DO}",
        "What is kept 64.3 % 9 of all 14 parameters; 50.00 % of the 10 prunable",
        "What it takes on disk 38 B",
        "Multiply-adds 50 % 21.55 G of 43.1 G have a weight that is left",
        "Time of one pass 44.2 ms dense 44.2 ms; masks alone make no network faster",
        "task items input dense 64.3 % kept what it costs",
        "blur 2 21.00 31.00 30.50 -0.50 ± 0.98",
        "grain (y) 1 10.00 11.00 10.00 -1.00",
        "blur: i0 (first item)",
        "blur: i1 (worst item of 64.3 %)",
        "64.3 %: 29.00 dB",
        "Emptied in 01-0.5000 (nothing is left of them): a.weight",
        "psnr whole image",
        "ssim 7x7 window",
        "cpu Abacus 9",
        "save the recipe below as toy-1234.yaml , and give this command beside it: "
        "prunekit run toy-1234.yaml --out toy-1234-again",
        "strategy: {name: iterative, rounds: 2}",
    ):
        assert words in seen, words
    assert "hidden" not in seen and "nan" not in seen  # of the environment, only what a reader needs


def test_page_loads_nothing_and_runs_only_its_own_scripts(page):
    assert re.findall(r'<(?:img|script|link|iframe)[^>]+(?:src|href)="(?!data:)', page) == []
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert len(scripts) == 2 and policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digests[0]}' 'sha256-{digests[1]}'; base-uri 'none'; form-action 'none'"
    )
    assert len(page) < 2_000_000


def test_every_picture_and_plot_is_inside(page):
    assert page.count("data:image/jpeg;base64,") == 2 * 4  # two items: input, two outputs, target
    plots = json.loads(re.search(r'id="plots">(.*?)</script>', page)[1])
    assert list(plots["items"][0]["roots"].values()) == ["quality-0", "quality-1", "quality-2", "sparsity", "loss"]


def test_same_run_gives_the_same_bytes_and_only_the_page_is_written(run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    first = write_html(run).read_bytes()
    html_page(make(run.parent / "another"))  # plots count what was drawn before
    assert write_html(run) == run / "report" / "report.html"
    assert (run / "report" / "report.html").read_bytes() == first
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path in before} == before
    assert write_html(run, run.parent / "out").read_bytes() == first


def test_texts_of_others_are_escaped(run):
    write_text(run / "recipe.yaml", RECIPE.replace("two tensors", '"</script><script>alert(1)</script>"'))
    facts = json.loads((run / TICKET / "done" / "metrics.json").read_text())
    for measure in facts:
        measure["task"] = "<img src=x>"
    write_json(run / TICKET / "done" / "metrics.json", facts)
    page = html_page(run)
    assert "alert(1)" in page and "<script>alert" not in page and "<img src=x" not in page


def test_a_number_that_may_be_of_another_data_set_is_not_shown(run):
    image = torch.zeros(20, 20, 3, dtype=torch.uint8)
    for name in (DENSE, TICKET):
        pictures = {f"grain/i0/{part}": image for part in ("input", "output", "target")}
        write_tensors(run / name / "done" / "samples.safetensors", pictures)
    seen = text(html_page(run))
    assert "grain: i0 (first item)" in seen and "10.00 dB" not in seen.partition("grain: i0")[2].partition("line")[0]
    shots = [scene.shots for scene in scenes(dict(zip((DENSE, TICKET), read_results(run), strict=True)))]
    assert [number for _, number, _ in shots[0]] == ["", "", "", ""]


def test_a_run_with_nothing_to_show_but_what_is_kept(run):
    for name in (DENSE, TICKET):
        write_json(run / name / "done" / "metrics.json", [])
        for file in ("samples.safetensors", "worst.safetensors"):
            (run / name / "done" / file).unlink()
    for name in (DENSE, TICKET, TO_DO):
        (run / name / "log.jsonl").unlink()
    seen = text(html_page(run))
    assert "What is kept 64.3 %" in seen
    assert "Pictures" not in seen and "Quality" not in seen and "Training" not in seen


def test_run_without_a_finished_stage_is_refused(run):
    for name in (DENSE, TICKET):
        (run / name / "done").rename(run / name / "hidden")
    with pytest.raises(RunError, match=r"no finished stage to report: 00-1\.0000 is not done"):
        write_html(run)
    assert not (run / "report").exists()


@pytest.mark.parametrize("module", ["bokeh.plotting", "PIL"])
def test_what_is_missing_is_named_with_the_command(run, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PruneKitError, match=r'pip install "prunekit\[report\]"'):
        write_html(run)


def test_a_page_stays_small_whatever_is_in_it(run, monkeypatch):
    size = len(html_page(run).encode())
    monkeypatch.setattr("prunekit.report.pictures.PAGE_BYTES", size - 3000)
    page = html_page(run)
    assert len(page.encode()) <= size - 2800 and page.count("data:image/jpeg;base64,") == 4
    assert "1 more items are left out: the page would be too large." in page


def test_a_page_has_room_for_so_many_marks_and_points(run, monkeypatch):
    monkeypatch.setattr("prunekit.report.html.MOST_MARKS", 3)  # of two tensors in two stages
    seen = text(html_page(run))
    assert "Of 2 stages 1 are here: the page would be too large." in seen
    curve = np.stack([np.arange(100_000), np.ones(100_000)], axis=1)
    (line,) = training({"dense": curve}).figure.renderers
    drawn = line.data_source.data["x"]
    assert (len(drawn), drawn[0], drawn[-1]) == (500, 0.0, 99_999.0)


def test_the_recipe_on_a_page_is_the_runs(tmp_path):
    run = make(tmp_path / "a run's")
    page = html_page(run)
    saved = html.unescape(re.search(r"every default filled in</h3><pre>(.*?)</pre>", page, re.DOTALL)[1])
    write_text(tmp_path / "a run's.yaml", saved)
    assert read_recipe_file(tmp_path / "a run's.yaml") == read_recipe_file(run / "recipe.yaml")
    command = re.search(r"<pre>(prunekit run .*?)</pre>", page)[1]
    assert shlex.split(html.unescape(command)) == ["prunekit", "run", "a run's.yaml", "--out", "a run's-again"]


def test_several_runs_stand_side_by_side(run, tmp_path):
    other = make(tmp_path / "other" / "toy-1234")
    write_text(other / "recipe.yaml", RECIPE.replace("seed: 7", "seed: 8"))
    file = write_comparison([run, other], tmp_path / "both")
    seen = text(file.read_text(encoding="utf-8"))
    assert file == tmp_path / "both" / "report.html"
    assert f"{run} 01-0.5000 64.3 % 38 B 21.55 G 44.2 ms 30.50 22.00 10.00" in seen
    assert f"key {run} {other} seed 7 8 Environment, data, protocol" in seen  # nothing else differs
    assert f"Environment what {run} {other} torch 2.14.0 2.14.0 cpu Abacus 9 Abacus 9 threads 2 2" in seen
    assert f"Data, items what {run} {other} blur, set 2 2 grain, x 1 1 grain, y 1 1" in seen
    assert f"Protocol what {run} {other} psnr whole image whole image ssim 7x7 window 7x7 window" in seen
    with pytest.raises(RunError, match=f"{run} is named twice: name each run once."):
        write_comparison([run, other, run.parent / "." / run.name], tmp_path / "both")


def test_the_verb_refuses_what_it_cannot_do(run, tmp_path):
    write_text(tmp_path / "study" / "study.yaml", "k: 1\n")
    with pytest.raises(RunError, match="is a study: name it alone with --html"):
        report([tmp_path / "study"], html=False, out=None)
    with pytest.raises(RunError, match="--out takes the report of one run"):
        report([run, run], html=False, out=tmp_path / "out")
    with pytest.raises(RunError, match="--margin is for a study"):
        report([run], html=True, out=None, margin=3.0)
    with pytest.raises(RunError, match="no finished arm to report"):
        report([tmp_path / "study"], html=True, out=None)


def test_a_study_shows_its_verdicts_and_its_arms(tmp_path):
    folder = tmp_path / "toy-study"
    write_text(folder / "study.yaml", "folder: /elsewhere\nk: 1\nrecipe: {seed: 3}\n")
    for seed in (0, 1):
        for arm, count in (("dense", 1), ("imp", 2), ("random", 3)):
            made = make(folder / f"seed-{seed}" / arm)
            plan = json.loads((made / "plan.json").read_text())
            write_json(made / "plan.json", plan[:count])  # the last arm is not done
    report([folder], html=True, out=None, margin=2.0)
    seen = text((folder / "report.html").read_text(encoding="utf-8"))
    assert "Study toy-study" in seen
    assert "Is it a winning ticket? psnr, margin 2" in seen
    assert "imp blur undecided -0.50 ± " in seen  # without a control nothing is decided
    assert f"Unfinished: seed-0/random: {TO_DO}; seed-1/random: {TO_DO}." in seen
    assert "dense 2 100.00 % 1,300" in seen
    assert "Recipe, every default filled in seed: 3" in seen and "elsewhere" not in seen
    arms = "dense,imp,imp-k,lr-rewind,one-shot,random,shuffled,reinit"
    assert f"prunekit study toy-study.yaml --arms {arms} --seeds 2 --k 1 --margin 2" in seen
    assert "torch 2.14.0" in seen and "psnr whole image" in seen and "blur set 2" in seen
    assert "Tickets on other tasks" not in seen


def test_a_study_of_single_tasks_shows_them(tmp_path):
    """Of the tasks blur and none other a network of its own is there; both have the same numbers."""
    folder = tmp_path / "study"
    write_text(
        folder / "study.yaml",
        "k: 1\narms: [dense, imp]\neach: {option: tasks, values: [blur, grain]}\nrecipe: {seed: 0}\n",
    )
    for arm in ("dense", "imp", "dense-on-blur", "imp-on-blur"):
        made = make(folder / "seed-0" / arm)
        plan = json.loads((made / "plan.json").read_text())
        write_json(made / "plan.json", plan[: 1 if arm.startswith("dense") else 2])
    report([folder], html=True, out=None, margin=2.0)
    seen = text((folder / "report.html").read_text(encoding="utf-8"))
    assert "Tickets on other tasks: psnr" in seen
    assert "ticket of on blur on grain (x) on grain (y) blur -0.50 (one seed" in seen
    assert "One task beside all: psnr" in seen and "What tickets have in common" in seen
    assert "blur, all 100.0 % 71.4 % " in seen  # of six entries both keep the same five
