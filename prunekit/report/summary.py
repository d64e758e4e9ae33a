"""What a run has found, in a few numbers: what is kept, what that costs, what it gains."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from prunekit.report.document import table
from prunekit.report.results import StageResult
from prunekit.report.table import Table, against, dense, digits, gap_text, labels, metrics, si

FAIRLY = "each was measured when its stage ended, and prunekit bench takes them in turn"


def stage_labels(results: Sequence[StageResult]) -> dict[str, StageResult]:
    """Return label -> stage: ``dense``, or the share that is left; the stage's name where two would be alike."""
    found: dict[str, StageResult] = {}
    for result in results:
        label = "dense" if result is dense(results) else f"{100 * result.density_of_all:.3g} %"
        found[result.name if label in found else label] = result
    return found


def unit(metric: str) -> str:
    """Return a metric with its unit, as far as its name tells it.

    Example:
        >>> unit("psnr_y"), unit("accuracy")
        ('psnr_y, dB', 'accuracy')
    """
    return f"{metric}, dB" if metric.startswith("psnr") else metric


def summary(results: Sequence[StageResult]) -> str:
    """Return the head of the page as markup: cards, and a table of the first metric."""
    last, first = results[-1], results[0]
    return f'<dl class="cards">{"".join(_card(*texts) for texts in _cards(first, last))}</dl>{_costs(results)}'


def _cards(first: StageResult, last: StageResult) -> list[tuple[str, str, str]]:
    kept = f"{last.remaining:,} of all {last.total:,} parameters"
    if not last.structured:
        kept += f"; {100 * last.density:.2f} % of the {last.prunable:,} prunable"
    small = last.bytes if last.structured else last.ticket_bytes
    shared = last.macs_kept / max(1, last.macs_dense)
    slow = "the cut network itself" if last.structured else "masks alone make no network faster in eager PyTorch"
    return [
        ("What is kept", f"{100 * last.density_of_all:.3g} %", kept),
        (
            "What it takes on disk",
            f"{si(small, 'B')}",
            f"dense weights {si(first.bytes, 'B')}: {_change(small, first.bytes)}",
        ),
        (
            "Multiply-adds",
            f"{100 * shared:.3g} %",
            f"{si(last.macs_kept)} of {si(last.macs_dense)}{'' if last.structured else ' have a weight that is left'}",
        ),
        (
            "Time of one pass",
            _ms(last.latency_ms),
            f"{'dense' if first.density == 1 else first.name} {_ms(first.latency_ms)}; {slow}; {FAIRLY}",
        ),
    ]


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.3g} ms" if milliseconds < 1000 else f"{milliseconds:.0f} ms"


def _change(now: float, before: float) -> str:
    return f"{before / now:.3g} times as small" if 0 < now < before else "nothing is saved"


def _card(title: str, big: str, small: str) -> str:
    return f'<div><dt>{escape(title)}</dt><dd class="big">{escape(big)}</dd><dd class="soft">{escape(small)}</dd></div>'


def _costs(results: Sequence[StageResult]) -> str:
    """Return what the last stage reaches of the first metric beside the dense network, task by task."""
    metric = next(iter(metrics(results)), None)
    if metric is None:
        return ""
    last, reference = results[-1], dense(results)
    named, gaps = labels(results, metric), against(last, reference, metric)
    ends = {"dense": reference} if reference is not None and reference is not last else {}
    ends |= {f"{100 * last.density_of_all:.3g} % kept": last}
    based = any(m.baseline is not None for result in ends.values() for m in result.means(metric))
    rows = []
    for group, label in named.items():
        found = {
            end: next((m for m in r.means(metric) if (m.task, m.dataset) == group), None) for end, r in ends.items()
        }
        mean = next((each for each in found.values() if each), None)
        if mean is None:
            continue
        decimals = digits([mean.baseline, *(each.value for each in found.values() if each)])
        numbers = [mean.baseline] if based else []
        numbers += [each.value if each else None for each in found.values()]
        cells = ["-" if number is None else f"{number:.{decimals}f}" for number in numbers]
        change = [gap_text(gaps.get(group), decimals)] if len(ends) > 1 else []
        rows.append((label, str(mean.n), *cells, *change))
    higher = next(m.higher_is_better for r in results for m in r.measures if m.metric == metric)
    header = ("task", "items", *(["input"] if based else []), *ends, *(["what it costs"] if len(ends) > 1 else []))
    note = f"{unit(metric)}: {'higher' if higher else 'lower'} is better; means over the items."
    if len(ends) > 1:
        note += " The last column is the difference to the dense network ± 1.96 standard errors, item by item."
    return f"<h3>{escape(unit(metric))}</h3>" + table(Table(header, tuple(rows), (note,)))
