"""Make the pictures of the documentation; the drawings come out the same, byte for byte.

Run: make pictures                  the drawings
     make pictures RUN=runs/mir_l-* those of a finished run of `mir_l`, too
     make pictures RUN=studies/NAME those of a finished study
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "prunekit", "font.size": 10, "figure.facecolor": "white"})

from matplotlib import pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from PIL import Image  # noqa: E402

import prunekit as pk  # noqa: E402

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures"


def schedules() -> Figure:
    """Draw the density over the progress of a run, one line a schedule."""
    figure, axes = pyplot.subplots(figsize=(6.4, 3.2), layout="constrained")
    lines = {
        "geometric": pk.geometric(0.1),
        "cubic": pk.cubic(0.1),
        "cosine": pk.cosine(0.1),
        "linear": pk.linear(0.1),
        "explicit": pk.explicit([0.5, 0.2, 0.1]),
        "at_once": pk.at_once(0.1),
    }
    progress = [k / 1200 for k in range(1201)]
    for name, schedule in lines.items():
        axes.plot(progress, [schedule(t) for t in progress], label=name)
    axes.set(xlabel="progress", ylabel="density", ylim=(0, 1.03), xlim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def box(axes: Axes, x: float, y: float, title: str, text: str, colour: str) -> None:
    """Draw one box of the design, its upper left corner at (x, y)."""
    axes.add_patch(pyplot.Rectangle((x, y - 1.3), 2.5, 1.3, facecolor=colour, edgecolor="#444", linewidth=1))
    axes.text(x + 1.25, y - 0.3, title, ha="center", va="center", weight="bold")
    axes.text(x + 1.25, y - 0.83, text, ha="center", va="center", fontsize=8.5)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "") -> None:
    """Draw an arrow, with what it does beside it."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "#444"})
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    axes.text(x, y + 0.08, text, ha="center", va="bottom", fontsize=8.5, style="italic")


def design() -> Figure:
    """Draw what becomes of a recipe."""
    figure, axes = pyplot.subplots(figsize=(9, 4.4), layout="constrained")
    axes.set(xlim=(-0.1, 13.2), ylim=(-0.2, 6.2))
    axes.axis("off")
    box(axes, 0, 6, "recipe", "YAML: task, prune,\nstrategy, seed", "#e8eef8")
    box(axes, 3.5, 6, "plan", "stages: rewind point,\nend, cuts at steps", "#e8eef8")
    box(axes, 7, 6, "run", "a directory;\nwhat is there is done", "#e6f3e6")
    box(axes, 10.5, 6, "report, ticket", "pages, tables, pictures;\none small file", "#e6f3e6")
    arrow(axes, (2.5, 5.35), (3.5, 5.35), "strategy")
    arrow(axes, (6, 5.35), (7, 5.35), "one loop")
    arrow(axes, (9.5, 5.35), (10.5, 5.35), "read")
    box(axes, 3.5, 3.4, "task", "network, batches, loss,\nmeasures", "#f8efe0")
    box(axes, 7, 3.4, "cut", "a value: masks,\nor a smaller shape", "#f8efe0")
    arrow(axes, (5.9, 3.4), (7.3, 4.7), "")
    arrow(axes, (8.4, 4.7), (8.4, 3.4), "")
    arrow(axes, (8.1, 3.4), (8.1, 4.7), "")
    box(axes, 5.2, 1.2, "scorer", "what is each\nweight worth?", "#f6e6ee")
    box(axes, 8.8, 1.2, "allocation", "how many does each\ntensor keep?", "#f6e6ee")
    arrow(axes, (6.6, 1.2), (7.7, 2.1), "")
    arrow(axes, (9.9, 1.2), (8.9, 2.1), "")
    axes.text(
        0,
        3.2,
        "blue: pure data, no torch\ngreen: on disk\nyellow, pink: values and functions,\nyours or registered",
        va="top",
        fontsize=8.5,
    )
    return figure


def of_a_run(run: Path) -> None:
    """Do what the first tutorial does with its run, and keep what it shows: a part of each picture, pixel by pixel."""
    page = (PICTURES.parent / "tutorials" / "first-ticket.md").read_text(encoding="utf-8")
    script = page.partition("<!-- file: noisy.py -->\n```python\n")[2].partition("```")[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-c", script], cwd=folder, check=True)
        for out, more in (("restored", []), ("denser", ["--stage", "02-0.3981"])):
            command = ["mir_l", "restore", str(run.resolve()), "noisy.png", "-o", out, *more]
            subprocess.run([sys.executable, "-m", "prunekit", *command], cwd=folder, check=True)
        parts = Image.new("RGB", (3 * 320 + 20, 320), "white")
        for index, shown in enumerate(("noisy.png", "restored/noisy.png", "denser/noisy.png")):
            parts.paste(Image.open(folder / shown).crop((120, 20, 440, 340)), (330 * index, 0))
        parts.save(PICTURES / "restored.jpg", quality=90)
    shutil.copyfile(run / "report" / "quality.png", PICTURES / "quality.png")


def of_a_study(study: Path) -> None:
    """Keep what its report shows: of single tasks, if it has some, or else quality against density."""
    alone = [name for name in ("interference", "overlap") if (study / f"{name}.png").exists()]
    for name in alone or ["quality"]:
        file = study / ("study.png" if name == "quality" else f"{name}.png")
        shutil.copyfile(file, PICTURES / f"study-{study.resolve().name}-{name}.png")


def main() -> None:
    """Write the drawings and, where a run or a study is named, its pictures."""
    PICTURES.mkdir(exist_ok=True)
    for draw in (schedules, design):
        draw().savefig(PICTURES / f"{draw.__name__}.svg", metadata={"Date": None, "Creator": None})
    for found in map(Path, sys.argv[1:]):
        if (found / "study.yaml").exists():
            of_a_study(found)
        else:
            of_a_run(found)


if __name__ == "__main__":
    main()
