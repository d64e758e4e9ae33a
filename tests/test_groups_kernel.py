"""N:M masks by the kernels against those by torch, bit for bit; what the kernels do not take, torch does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prunekit import groups, native
from prunekit.amount import Density
from prunekit.errors import SelectionError
from prunekit.masks import Masks

pytestmark = [
    pytest.mark.skipif(native.kernels() is None, reason="the kernels were not built: no C compiler at install"),
    pytest.mark.usefixtures("every_copy"),
]
VALUES = torch.tensor([-torch.inf, -1e38, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, 1.0, torch.inf])


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def cases(shape: tuple[int, ...], alive: float, seed: int) -> tuple[Tensor, Tensor]:
    """Scores with ties, zeros of both signs and infinities, NaN where cut; and the mask."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(shape, generator=generator) <= alive
    return VALUES[torch.randint(len(VALUES), shape, generator=generator)].masked_fill(~mask, torch.nan), mask


def by_kernels(score: Tensor, mask: Tensor, n: int, m: int) -> Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups, "_compare", None)
        return groups._best_of_groups({"w": score}, "w", mask, n, m)


def by_torch(score: Tensor, mask: Tensor, n: int, m: int) -> Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_found", lambda: native.NOT_BUILT)
        patch.setattr(groups, "_choose", None)
        return groups._best_of_groups({"w": score}, "w", mask, n, m)


@given(
    rows=st.integers(0, 7), wide=st.integers(1, 7), m=st.integers(2, 16), n=st.integers(1, 15), seed=st.integers(0, 99),
    kernel=st.sampled_from([(), (1, 1), (2,), (3, 2), (3, 3), (0,), (5, 5)]), alive=st.sampled_from([0.0, 0.5, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_any_pattern(
    rows: int, wide: int, m: int, n: int, seed: int, kernel: tuple[int, ...], alive: float, dtype: torch.dtype
) -> None:
    n = min(n, m - 1)
    score, mask = cases((rows, wide * m, *kernel), alive, seed)
    score = score.to(dtype)
    assert torch.equal(by_kernels(score, mask, n, m), by_torch(score, mask, n, m))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("n", "m"), [(1, 3), (2, 4), (4, 8)])
@pytest.mark.parametrize("kernel", [(), (3, 3), (1100,)], ids=["linear", "3x3", "wider than a piece"])
def test_many_pieces(kernel: tuple[int, ...], n: int, m: int) -> None:
    score, mask = cases((3 if kernel else 401, 2 * m if kernel == (1100,) else 23 * m, *kernel), 0.7, n)
    assert torch.equal(by_kernels(score, mask, n, m), by_torch(score, mask, n, m))


@pytest.mark.parametrize("type_of", [torch.float32, torch.float16])
@pytest.mark.parametrize("place", [0, 2047, 4095])
def test_nan_among_survivors_is_refused_wherever_it_lies(place: int, type_of: torch.dtype) -> None:
    for sign in (1, -1):
        score, mask = torch.rand(64, 64).to(type_of), torch.ones(64, 64, dtype=torch.bool)
        score.view(-1)[place] = sign * torch.nan
        with pytest.raises(SelectionError, match="'w' holds NaN"):
            groups.n_of_m()({"w": score}, Masks({"w": mask}), Density(0.5))
        mask.view(-1)[place] = False
        assert not by_kernels(score, mask, 2, 4).view(-1)[place]


def test_memory_layouts() -> None:
    score, mask = cases((16, 24), 0.8, 0)
    expected = by_torch(score.t().contiguous(), mask.t().contiguous(), 2, 4)
    assert torch.equal(by_kernels(score.t(), mask.t(), 2, 4), expected)
    one, alive = torch.tensor([[1.0, 4.0, 3.0, 2.0]]).expand(9, 4), torch.ones(1, 1, dtype=torch.bool).expand(9, 4)
    assert by_kernels(one, alive, 2, 4).tolist() == [[False, True, True, False]] * 9
    shifted = torch.cat([torch.zeros(1), score.flatten()])[1:].view(16, 24)
    assert torch.equal(by_kernels(shifted, mask, 2, 4), by_torch(score, mask, 2, 4))


def test_what_the_kernels_do_not_take_goes_by_torch() -> None:
    wide = torch.tensor([[1.0, 1.0 + 2.0**-40, 0.0, 0.0]], dtype=torch.float64)  # as float32 the first two are equal
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert groups._best_of_groups({"w": wide}, "w", mask, 1, 4).tolist() == [[False, True, False, False]]
    many = torch.arange(34.0).view(1, 34)
    assert groups._best_of_groups({"w": many}, "w", many >= 0, 1, 17).nonzero()[:, 1].tolist() == [16, 33]
