"""Masks as bits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunekit.bits import pack, unpack
from prunekit.errors import MaskError


@given(st.lists(st.booleans(), max_size=70), st.booleans())
def test_packing_and_back(bits: list[bool], column: bool) -> None:
    mask = torch.tensor(bits, dtype=torch.bool)
    mask = mask[:, None] if column else mask
    packed = pack(mask)
    assert packed.dtype == torch.uint8 and packed.shape == ((len(bits) + 7) // 8,)
    assert torch.equal(unpack(packed, mask.shape, name="m"), mask)


def test_a_transposed_mask_is_packed_in_its_own_order() -> None:
    mask = torch.tensor([[True, False], [True, False], [True, False], [True, True]])
    assert pack(mask).tolist() == [0b11010101]
    assert pack(mask.T).tolist() == [0b10001111]


@pytest.mark.parametrize(
    ("packed", "shape", "why"),
    [
        ([1], [9], "1 bytes for shape"),
        ([1, 0], [8], "2 bytes for shape"),
        ([0b1000], [3], "past the end"),
        ([0], [-2, -4], "damaged"),
        ([0], [10**20], "damaged"),
    ],
)
def test_bytes_that_do_not_fit_are_damage(packed: list[int], shape: list[int], why: str) -> None:
    with pytest.raises(MaskError, match=why):
        unpack(torch.tensor(packed, dtype=torch.uint8), shape, name="m")
