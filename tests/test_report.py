"""Reports from run directories written here by hand, so that every number is known."""

import csv
import json
import math
import sys
from dataclasses import replace

import matplotlib.image
import pytest
import torch

from prunekit.errors import PruneKitError, RunError
from prunekit.files import write_json, write_tensors, write_text
from prunekit.masks import Masks
from prunekit.report import write_report
from prunekit.report.results import read_results, read_samples, unfinished
from prunekit.report.table import against, costs, quality

DENSE, TICKET, TO_DO = "00-1.0000", "01-0.5000", "02-0.2500"
PICTURES = ["quality.png", "sparsity.png", "samples.png", "loss.png"]
RECIPE = """description: two tensors
task: {name: toy}
prune: {name: unstructured}
strategy: {name: iterative, rounds: 2}
seed: 7
"""


def measure(task, dataset, item, metric, value, baseline):
    protocol = "whole image" if metric == "psnr" else "7x7 window"
    return dict(
        task=task,
        dataset=dataset,
        item=item,
        metric=metric,
        value=value,
        protocol=protocol,
        higher_is_better=True,
        baseline=baseline,
    )


def measures(blur_psnr, blur_ssim, grain_psnr):
    made = [measure("blur", "set", f"i{k}", "psnr", value, 20.0 + 2 * k) for k, value in enumerate(blur_psnr)]
    made += [measure("blur", "set", f"i{k}", "ssim", value, 0.5) for k, value in enumerate(blur_ssim)]
    return made + [
        measure("grain", name, "i0", "psnr", value, 10.0) for name, value in zip("xy", grain_psnr, strict=True)
    ]


def stage(run, name, masks, numbers, *, unused, macs_kept):
    """Write a finished stage of a network of 14 parameters, 10 of them prunable."""
    done = run / name / "done"
    write_tensors(done / "weights.safetensors", {"b.weight": torch.zeros(6), "a.weight": torch.zeros(4)})
    write_tensors(done / "cut.safetensors", masks.state_dict())
    image = torch.arange(20 * 20 * 3, dtype=torch.float32).remainder(255).to(torch.uint8).reshape(20, 20, 3)
    pictures = {"blur/i0/input": image, "blur/i0/output": image // 2, "blur/i0/target": image // 3}
    write_tensors(done / "samples.safetensors", pictures)
    write_json(done / "metrics.json", numbers)
    facts = {"name": name, "density": masks.density, "prunable": masks.prunable, "kept": masks.kept, "total": 14}
    facts |= {"remaining": masks.kept + 4, "emptied": list(masks.emptied()), "unused": unused}
    facts |= {"ticket_bytes": 38 if masks.kept < 10 else 56}
    facts |= {"per_tensor": masks.per_tensor(), "macs_dense": 43_100_000_000, "macs_kept": macs_kept}
    write_json(done / "stage.json", facts)
    write_json(done / "cost.json", {"seconds": 12.5, "latency_ms": 44.25, "peak_mib": 900.0})
    lines = [json.dumps({"clock": clock, "loss": 1 / (1 + clock), "lr_factor": 1.0}) for clock in range(8)]
    write_text(run / name / "log.jsonl", "\n".join(lines) + "\n")


def make(path):
    """Write a run of three stages, two of them finished; the second keeps 5 of 10 and empties ``a.weight``."""
    write_text(path / "recipe.yaml", RECIPE)
    write_json(path / "env.json", {"torch": "2.14.0", "cpu": "Abacus 9", "threads": 2, "secret": "hidden"})
    names = ((DENSE, 0), (TICKET, 100), (TO_DO, 100))
    plan = [{"name": n, "weights": 0, "clock": c, "keep": [], "end": 1300, "prune_at": []} for n, c in names]
    write_json(path / "plan.json", plan)
    whole = Masks({"b.weight": torch.ones(6, dtype=torch.bool), "a.weight": torch.ones(4, dtype=torch.bool)})
    half = Masks({"b.weight": torch.arange(6) > 0, "a.weight": torch.zeros(4, dtype=torch.bool)})
    numbers = measures((30.0, 32.0), (0.9, 0.8), (21.0, 11.0))
    stage(path, DENSE, whole, numbers, unused=["spare.weight"], macs_kept=43_100_000_000)
    numbers = measures((29.0, 32.0), (0.8, 0.8), (22.0, 10.0))
    stage(path, TICKET, half, numbers, unused=[], macs_kept=21_550_000_000)
    (path / TO_DO).mkdir()
    write_text(path / TO_DO / "log.jsonl", '{"clock": 0, "loss": 0.5, "lr_factor": 1.0}\n{"clock": 1, "lo')
    return path


@pytest.fixture
def run(tmp_path):
    return make(tmp_path / "toy-1234")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The folder of one report, for the tests that only read it."""
    return write_report(make(tmp_path_factory.mktemp("runs") / "toy-1234"))[0].parent


def test_costs_name_both_denominators_and_every_cost(run):
    table = costs(read_results(run))
    size = (run / DENSE / "done" / "weights.safetensors").stat().st_size
    assert table.header == (
        *("stage", "steps", "kept of prunable (10)", "kept of all (14)", "weights file", "as a ticket"),
        *("MACs dense", "MACs kept", "latency, eager"),
    )
    assert table.rows == (
        (DENSE, "1,300", "10 (100.00 %)", "14 (100.00 %)", f"{size} B", "56 B", "43.1 G", "43.1 G", "44.2 ms"),
        (TICKET, "1,200", "5 (50.00 %)", "9 (64.29 %)", f"{size} B", "38 B", "43.1 G", "21.55 G", "44.2 ms"),
    )
    assert any("masks do not make it shorter" in note for note in table.notes)


def test_quality_starts_with_the_input_and_keeps_data_sets_apart(run):
    results = read_results(run)
    assert quality(results, "psnr").header == ("stage", "blur psnr", "grain (x) psnr", "grain (y) psnr")
    assert quality(results, "psnr").rows == (
        ("input", "21.00", "10.00", "10.00"),
        (DENSE, "31.00 (+10.00)", "21.00 (+11.00)", "11.00 (+1.00)"),
        (TICKET, "30.50 (+9.50)", "22.00 (+12.00)", "10.00 (+0.00)"),
    )
    assert quality(results, "ssim").rows == (
        ("input", "0.5000"),
        (DENSE, "0.8500 (+0.3500)"),
        (TICKET, "0.8000 (+0.3000)"),
    )


def test_a_metric_that_the_input_cannot_have_has_no_row_for_it(run):
    dense = read_results(run)[0]
    bare = [replace(measure, baseline=None) for measure in dense.measures]
    assert quality([replace(dense, measures=bare)], "ssim").rows == ((DENSE, "0.8500"),)


def test_differences_to_dense_are_paired_by_item(run):
    first, second = read_results(run)
    found = against(second, first, "psnr")
    assert found["blur", "set"] == pytest.approx((-0.5, 1.96 * 0.5))  # differences -1 and 0
    assert found["grain", "x"][0] == 1.0 and math.isnan(found["grain", "x"][1])  # one item has no spread


def test_tensors_stand_in_model_order(run):
    assert read_results(run)[1].per_tensor == [("b.weight", 5, 6), ("a.weight", 0, 4)]


def test_report_writes_only_its_folder_and_the_same_again(run):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.rglob("*") if path.is_file()}
    files = write_report(run)
    assert [path.name for path in files] == ["report.md", "results.csv", "measures.csv", *PICTURES]
    assert {path.parent for path in files} == {run / "report"} and set((run / "report").iterdir()) == set(files)
    first = {path: path.read_bytes() for path in files}
    assert {path: path.read_bytes() for path in write_report(run)} == first
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before
    for name in PICTURES:
        image = matplotlib.image.imread(run / "report" / name)
        assert min(image.shape[:2]) >= 250 and image.std() > 0.01


def test_report_of_a_ticket_without_a_dense_stage_goes_where_it_is_told(run, tmp_path):
    (run / DENSE / "done").rename(run / DENSE / "hidden")
    out = tmp_path / "deep" / "er"
    assert [path.name for path in write_report(run, out)] == ["report.md", "results.csv", "measures.csv", *PICTURES]
    assert not (run / "report").exists()
    assert "against dense" not in (out / "report.md").read_text(encoding="utf-8")


def test_page_says_what_a_reader_must_know(report):
    text = (report / "report.md").read_text(encoding="utf-8")
    for words in (
        "# toy-1234",
        "two tensors",
        "prunekit run toy-1234.yaml --out toy-1234-again",
        f"still to be done: {TO_DO}",
        "| 01-0.5000 | 1,200 | 5 (50.00 %) | 9 (64.29 %) |",
        "| input | 21.00 | 10.00 | 10.00 |",
        "| 01-0.5000 | -0.50 ± 0.98 | +1.00 | -1.00 |",
        "Higher is better. Means over items; in brackets the difference to the input. Protocol: whole image.",
        "Protocol: 7x7 window.",
        "yet counted in 'all': `spare.weight`.",
        "Emptied in 01-0.5000 (nothing is left of them): `a.weight`.",
        "5 of 10 prunable parameters are kept and 9 of all 14",
        "| all | 25.0 s |",
        "* cpu: Abacus 9",
        "* threads: 2",
        "strategy: {name: iterative, rounds: 2}",
        *(f"]({name})" for name in PICTURES),
    ):
        assert words in text, words
    assert "Emptied in 00" not in text and "nan" not in text


def test_csv_holds_the_numbers_in_full(report):
    with (report / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 4  # stages, (task, data set, metric)
    row = next(row for row in rows if (row["stage"], row["task"], row["metric"]) == (TICKET, "blur", "psnr"))
    expected = {"value": "30.5", "n": "2", "baseline": "21.0", "protocol": "whole image", "difference_to_dense": "-0.5"}
    expected |= {"density": "0.5", "density_of_all": str(9 / 14), "kept": "5", "prunable": "10", "total": "14"}
    expected |= {"macs_kept": "21550000000", "latency_ms": "44.25", "seconds": "12.5", "steps": "1200"}
    assert {key: row[key] for key in expected} == expected
    assert [row["half_95_interval"] for row in rows if row["stage"] == TICKET and row["task"] == "grain"] == ["", ""]
    with (report / "measures.csv").open(encoding="utf-8", newline="") as file:
        items = list(csv.DictReader(file))
    assert len(items) == 2 * 6
    assert items[1] == {
        **{"stage": DENSE, "task": "blur", "dataset": "set", "item": "i1", "metric": "psnr", "value": "32.0"},
        **{"protocol": "whole image", "higher_is_better": "True", "baseline": "22.0"},
    }


def test_unfinished_run_tells_what_is_missing(run):
    assert [result.name for result in read_results(run)] == [DENSE, TICKET]
    assert unfinished(run) == [TO_DO]


def test_run_without_a_finished_stage_is_refused(run):
    for name in (DENSE, TICKET):
        (run / name / "done").rename(run / name / "hidden")
    assert read_results(run) == []
    with pytest.raises(RunError, match=r"no finished stage to report: 00-1\.0000 is not done"):
        write_report(run)
    assert not (run / "report").exists()


@pytest.mark.parametrize("folder", ["nowhere", "other"])
def test_foreign_directory_is_refused(tmp_path, folder):
    write_text(tmp_path / "other" / "letter.txt", "dear")
    with pytest.raises(RunError, match=f"{folder} is not a run directory"):
        write_report(tmp_path / folder)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["letter.txt"]


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "cut.safetensors", "metrics.json", "stage.json", "cost.json", "samples.safetensors"]
)
def test_truncated_file_of_a_stage_is_named_with_the_way_out(run, name):
    path = run / TICKET / "done" / name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RunError) as error:
        write_report(run)
    assert str(path) in str(error.value) and f"delete {path.parent}" in str(error.value)


def test_stage_that_lacks_a_fact_is_damaged(run):
    path = run / DENSE / "done" / "stage.json"
    write_json(path, {"name": DENSE})
    with pytest.raises(RunError, match=r"stage\.json is missing, truncated or not a run's"):
        read_results(run)


@pytest.mark.parametrize("name", ["plan.json", "recipe.yaml", "env.json"])
def test_damaged_file_of_the_run_is_named(run, name):
    (run / name).write_text("[{", encoding="utf-8")
    with pytest.raises(RunError, match=name.replace(".", r"\.")):
        write_report(run)


def test_log_damaged_in_the_middle_is_named(run):
    write_text(run / DENSE / "log.jsonl", '{"clo\n{"clock": 1, "loss": 0.5}\n')
    with pytest.raises(RunError, match=r"log\.jsonl is missing, truncated"):
        write_report(run)


def test_without_matplotlib_the_numbers_are_still_written(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PruneKitError, match=r'pip install "prunekit\[report\]"'):
        write_report(run)
    assert sorted(path.name for path in (run / "report").iterdir()) == ["measures.csv", "report.md", "results.csv"]
    assert ".png" not in (run / "report" / "report.md").read_text(encoding="utf-8")


def test_run_with_nothing_to_draw_but_what_is_kept(run):
    """A task may measure nothing, and the network may not have been trained."""
    (run / TICKET / "done").rename(run / TICKET / "hidden")
    write_json(run / DENSE / "done" / "metrics.json", [])
    (run / DENSE / "done" / "samples.safetensors").unlink()
    for name in (DENSE, TICKET, TO_DO):
        (run / name / "log.jsonl").unlink()
    names = ["report.md", "results.csv", "measures.csv", "sparsity.png"]
    assert [path.name for path in write_report(run)] == names


def test_perfect_item_is_infinite_and_does_no_harm(run):
    path = run / TICKET / "done" / "metrics.json"
    write_json(path, measures((math.inf, 32.0), (1.0, 1.0), (22.0, 10.0)))
    assert quality(read_results(run), "psnr").rows[2][1] == "inf (+inf)"
    assert len(write_report(run)) == 7


def test_samples_are_the_first_item_of_each_task(run):
    item, images = read_samples(read_results(run)[0])["blur"]
    assert item == "i0" and images.keys() == {"input", "output", "target"}
    assert images["output"].shape == (20, 20, 3) and images["output"].dtype == torch.uint8
