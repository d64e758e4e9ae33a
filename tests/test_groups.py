"""N:M patterns and outputs by themselves, against their definitions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prunekit import native
from prunekit.amount import Density, Rate
from prunekit.errors import MaskError, SelectionError
from prunekit.groups import n_of_m, per_output
from prunekit.masks import Masks


def masks_like(score: Tensor, alive: float = 1.0, seed: int = 0) -> Masks:
    generator = torch.Generator().manual_seed(seed)
    return Masks({"w": torch.rand(score.shape, generator=generator) <= alive})


def by_definition(values: list[float], alive: list[bool], n: int) -> list[bool]:
    """Survivors by falling score, of equals the first; the best n."""
    order = sorted((k for k in range(len(values)) if alive[k]), key=lambda k: -values[k])
    return [k in order[:n] for k in range(len(values))]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 5), groups=st.integers(1, 4), m=st.integers(2, 6), n=st.integers(1, 5),
    alive=st.sampled_from([0.3, 0.8, 1.0]), built=st.booleans(),
)  # fmt: skip
def test_n_of_m_equals_its_definition(rows: int, groups: int, m: int, n: int, alive: float, built: bool) -> None:
    n = min(n, m - 1)
    score = torch.randint(-2, 3, (rows, groups * m, 2, 1), generator=torch.Generator().manual_seed(rows)).float()
    now = masks_like(score, alive)
    kept = sum(sum(by_definition(values, living, n)) for values, living in _groups(score, now["w"], m))
    if not kept:
        return
    with pytest.MonkeyPatch.context() as patch:
        if not built:
            patch.setattr(native, "_found", lambda: native.NOT_BUILT)
        after = n_of_m(n=n, m=m)({"w": score}, now, Density(kept / now.prunable))["w"]
    for (values, living), (found, _) in zip(_groups(score, now["w"], m), _groups(after.float(), after, m), strict=True):
        assert [bool(each) for each in found] == by_definition(values, living, n)


def _groups(score: Tensor, mask: Tensor, m: int) -> list[tuple[list[float], list[bool]]]:
    flat = [each.movedim(1, -1).reshape(-1, m) for each in (score, mask)]
    return [(values.tolist(), living.tolist()) for values, living in zip(*flat, strict=True)]


def test_the_pattern_lies_along_the_input_channels() -> None:
    score = torch.zeros(1, 4, 1, 2)
    score[0, :, 0, 0] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    score[0, :, 0, 1] = torch.tensor([4.0, 3.0, 2.0, 1.0])
    after = n_of_m()({"w": score}, masks_like(score), Density(0.5))["w"]
    assert after[0, :, 0, 0].tolist() == [False, False, True, True]
    assert after[0, :, 0, 1].tolist() == [True, True, False, False]


def test_many_groups_are_cut_in_pieces() -> None:
    score = torch.randn(600, 512, generator=torch.Generator().manual_seed(0))
    after = n_of_m()({"w": score}, masks_like(score), Density(0.5))["w"]
    best = score.reshape(600, 128, 4).topk(2).indices
    expected = torch.zeros(600, 128, 4, dtype=torch.bool).scatter_(2, best, True)
    assert torch.equal(after, expected.reshape(600, 512))


def test_n_of_m_refuses_what_it_cannot_give() -> None:
    score = torch.rand(2, 4)
    for amount in (Density(0.4), Density(1.0), Rate(0.1)):
        with pytest.raises(SelectionError, match=r"2:4 keeps 4 of 8 weights and no other number"):
            n_of_m()({"w": score}, masks_like(score), amount)
    for shape in ((2, 3), (8,)):
        with pytest.raises(SelectionError, match="needs 'w' to have a second axis that divides by 4"):
            n_of_m()({"w": torch.rand(shape)}, masks_like(torch.rand(shape)), Density(0.5))
    with pytest.raises(SelectionError, match="1 <= n < m, not 4 of 4"):
        n_of_m(n=4, m=4)
    with pytest.raises(SelectionError, match="no score for 'w'"):
        n_of_m()({}, masks_like(score), Density(0.5))
    with pytest.raises(SelectionError, match="holds NaN"):
        n_of_m()({"w": score * float("nan")}, masks_like(score), Density(0.5))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.floats(0.01, 1), st.sampled_from([0.2, 0.7, 1.0]), st.integers(0, 3))
def test_per_output_meets_the_count_and_keeps_each_outputs_best(
    rows: int, columns: int, density: float, alive: float, min_keep: int
) -> None:
    score = torch.randint(0, 4, (rows, columns), generator=torch.Generator().manual_seed(columns)).float()
    now = masks_like(score, alive, seed=rows)
    amount = Density(density)
    after = per_output(min_keep=min_keep)({"w": score}, now, amount)["w"]
    floor = sum(min(min_keep, int(row.sum())) for row in now["w"])
    assert int(after.sum()) == max(floor, amount.keep(now.kept, now.prunable))
    counts = after.sum(1)
    for values, living, found in zip(score.tolist(), now["w"].tolist(), after.tolist(), strict=True):
        assert found == by_definition(values, living, sum(found))
    room = now["w"].sum(1) > counts  # outputs that could give more differ by one at most
    if room.any() and min_keep == 0:
        assert (
            int(counts[room].max()) - int(counts[room].min()) <= 1 and int(counts.max()) <= int(counts[room].min()) + 1
        )


def test_per_output_of_scalars_vectors_and_empty_tensors() -> None:
    scores = {"scalar": torch.ones(()), "vector": torch.arange(4.0), "none": torch.ones(3, 0), "flat": torch.ones(0, 3)}
    now = Masks({name: torch.ones(score.shape, dtype=torch.bool) for name, score in scores.items()})
    after = per_output()(scores, now, Density(0.6))
    assert after.per_tensor() == {"scalar": (1, 1), "vector": (2, 4), "none": (0, 0), "flat": (0, 0)}


def test_per_output_names_mistakes() -> None:
    score = torch.rand(2, 4)
    with pytest.raises(MaskError, match=r"shape \(4,\)"):
        per_output()({"w": torch.rand(4)}, masks_like(score), Density(0.5))
    with pytest.raises(SelectionError, match="min_keep must be 0 or more"):
        per_output(min_keep=-1)
