"""Pictures for the HTML page: what to show of the samples, as small files, and their markup with a slider."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, final

from torch import Tensor

from prunekit.errors import PruneKitError
from prunekit.report.charts import NEEDED
from prunekit.report.results import StageResult, read_samples, read_worst
from prunekit.report.table import digits, metrics
from prunekit.task import Measure

PAGE_BYTES = 4_900_000
MOST_BYTES = 2_500_000  # of all pictures of a page, where the rest of it leaves that much
PLACE = "<!-- pictures -->"  # no text of others can be this: all are escaped
SIZES = ((512, 92), (384, 90), (256, 88), (192, 85), (128, 80))  # longest side in pixels, JPEG quality
MOST_SCENES = 16


@final
@dataclass(frozen=True)
class Scene:
    """One item: ``shots`` are (label, number, image), the untreated input first and the target last if there are any.

    Args:
        title: which item it is, and why it is shown.
        outputs: places of the outputs among the shots; the slider starts with the first shot and the last of these.
    """

    title: str
    shots: Sequence[tuple[str, str, Tensor]]
    outputs: Sequence[int]


def scenes(stages: Mapping[str, StageResult]) -> list[Scene]:
    """Return each task's first item at every stage, and its worst item at the last stage where that is another.

    Args:
        stages: label -> finished stage of one run, in order; of several runs, their last ones.
    """
    firsts = {label: read_samples(stage) for label, stage in stages.items()}
    worsts = {label: read_worst(stage) for label, stage in stages.items()}
    last = list(stages)[-1]
    made = []
    for task, (item, _) in firsts[last].items():
        also = worsts[last].get(task, ("", {}))[0] == item
        note = f"first item, and the worst of {last}" if also else "first item"
        made.append(_scene(stages, (firsts,), (task, item), note))
    for task, (item, _) in worsts[last].items():
        if item != firsts[last].get(task, ("", {}))[0]:
            made.append(_scene(stages, (worsts, firsts), (task, item), f"worst item of {last}"))
    return [scene for scene in made if scene.outputs and len(scene.shots) > 1][:MOST_SCENES]


def _scene(
    stages: Mapping[str, StageResult],
    sources: Iterable[Mapping[str, Mapping[str, tuple[str, dict[str, Tensor]]]]],
    place: tuple[str, str],
    note: str,
) -> Scene:
    task, item = place
    found: dict[str, dict[str, Tensor]] = {}
    for source in sources:
        for label, samples in source.items():
            if samples.get(task, ("", {}))[0] == item:
                found.setdefault(label, samples[task][1])
    images = found[next(reversed(found))]
    metric = next(iter(metrics(stages.values())), "")
    measures = {label: _only(stages[label], (task, item, metric)) for label in stages if label in found}
    values = {label: measure.value for label, measure in measures.items() if measure}
    baseline = next((m.baseline for m in measures.values() if m and m.baseline is not None), None)
    places = digits([*values.values(), baseline])

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.{places}f} {'dB' if metric.startswith('psnr') else metric}"

    shots = [("input", number(baseline), images["input"])] if "input" in images else []
    outputs = [label for label in measures if "output" in found[label]]
    shots += [(label, number(values.get(label)), found[label]["output"]) for label in outputs]
    start = len(shots) - len(outputs)
    shots += [("target", "", images["target"])] if "target" in images else []
    return Scene(f"{task}: {item} ({note})", shots, range(start, start + len(outputs)))


def _only(stage: StageResult, key: tuple[str, str, str]) -> Measure | None:
    """Return the measure of a task, item and metric; none where two data sets have an item of that name."""
    held = [m for m in stage.measures if (m.task, m.item, m.metric) == key]
    return held[0] if len(held) == 1 else None


def with_pictures(page: str, found: Sequence[Scene]) -> str:
    """Return a page with the scenes in their `PLACE`, as large as the rest of it allows."""
    return page.replace(PLACE, markup(found, min(MOST_BYTES, PAGE_BYTES - len(page.encode()))), 1)


def markup(found: Sequence[Scene], most: int) -> str:
    """Return the scenes as HTML with every picture inside, at most so many bytes; all texts are escaped."""
    texts: list[str] = []
    for side, quality in SIZES:
        texts = [_figure(scene, [_encoded(image, side, quality) for *_, image in scene.shots]) for scene in found]
        if sum(len(text.encode()) for text in texts) <= most:
            return "\n".join(texts)
    sums = itertools.accumulate(len(text.encode()) for text in texts)
    texts = [text for text, total in zip(texts, sums, strict=True) if total <= most]
    return "\n".join(
        [*texts, f"<p>{len(found) - len(texts)} more items are left out: the page would be too large.</p>"]
    )


def _figure(scene: Scene, pictures: Sequence[str]) -> str:
    before = 0 if scene.outputs[0] else scene.outputs[0]
    options = [escape(f"{label}: {number}" if number else label) for label, number, _ in scene.shots]

    def choice(name: str, chosen: int) -> str:
        listed = "".join(
            f'<option value="{place}"{" selected" if place == chosen else ""}>{text}</option>'
            for place, text in enumerate(options)
        )
        return f'<label>{name} <select class="{name}">{listed}</select></label>'

    height, width = scene.shots[0][2].shape[:2]
    strip = "".join(
        f'<li><img src="{picture}" alt="{escape(scene.title)}: {text}" width="{width}" height="{height}">'
        f"<span>{text}</span></li>"
        for picture, text in zip(pictures, options, strict=True)
    )
    return (
        f'<figure class="scene"><figcaption>{escape(scene.title)}</figcaption>'
        f'<div class="pair" style="aspect-ratio: {width} / {height}"><img class="under" alt="">'
        '<img class="over" alt=""><span class="edge"></span></div>'
        '<label class="slide">line <input type="range" min="0" max="100" value="50" step="1"></label>'
        f'<div class="choices">{choice("left", before)}{choice("right", scene.outputs[-1])}</div>'
        f'<ul class="strip">{strip}</ul></figure>'
    )


def _encoded(image: Tensor, side: int, quality: int) -> str:
    """Return a uint8 image of shape (height, width, 3) as a JPEG data address."""
    try:
        from PIL import Image
    except ImportError as cause:
        raise PruneKitError(NEEDED) from cause
    picture: Any = Image.fromarray(image.numpy())
    picture.thumbnail((side, side))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality, subsampling=0)  # artefacts are what one looks for: keep all the colour
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"
