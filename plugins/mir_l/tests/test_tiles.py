"""Tiles: what they cover, how they are blended, and that PromptIR's agree with the image as a whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunekit.imaging import ImageCall, image_call
from prunekit_mir_l.images import Pixels
from prunekit_mir_l.memory import peak_bytes
from prunekit_mir_l.presets import promptir_tiny
from prunekit_mir_l.restorer import Restorer
from prunekit_mir_l.tiles import Tiling, as_pixels, in_tiles, restored_floats, tile_pixels, windows
from prunekit_mir_l.whole_image import of_whole_image

RGB = ImageCall(channels=3)


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=60, deadline=None)
@example(length=21, tile=11, share=2)
@given(length=st.integers(1, 400), tile=st.integers(4, 90), share=st.integers(0, 40))
def test_weights_sum_to_one_and_tiles_cover_everything(length: int, tile: int, share: int) -> None:
    tiling = Tiling(length, tile, min(share, tile // 4))
    total = np.zeros(length)
    for start, weight in zip(tiling.starts, tiling.weights(), strict=True):
        assert weight.min() > 0
        total[start : start + tiling.size] += weight
    assert tiling.starts[-1] + tiling.size == length
    assert np.allclose(total, 1, atol=1e-5)


def test_a_network_that_changes_nothing_gives_the_same_picture() -> None:
    picture = noise(50, 71)
    assert np.array_equal(in_tiles(nn.Identity(), RGB, picture, tile=24, overlap=6), picture)


def test_a_local_network_makes_the_same_in_tiles() -> None:
    torch.manual_seed(0)
    blur = nn.Conv2d(3, 3, 3, padding=1, padding_mode="replicate", groups=3, bias=False)
    with torch.no_grad():
        blur.weight.fill_(1 / 9)
    picture = noise(40, 64)
    whole = restored_floats(blur, RGB, picture).astype(np.float64)
    tiled = in_tiles(blur, RGB, picture, tile=16, overlap=4) / 255
    inner = (slice(1, -1), slice(1, -1))
    # The outermost pixel of a tile lacks its neighbours; of its blend it is an eighth at most.
    assert np.abs(tiled - whole)[inner].mean() < 0.01
    assert np.abs(in_tiles(blur, RGB, picture, tile=64, overlap=4) / 255 - whole).max() <= 0.5 / 255 + 1e-6


def test_halves_are_rounded_and_not_cut_off() -> None:
    values = np.array([[0.0, 0.999, 1.0, 127.4 / 255, 127.6 / 255]], np.float32)
    assert as_pixels(values).tolist() == [[0, 255, 255, 127, 128]]


def test_tiles_are_multiples_of_what_the_network_wants() -> None:
    assert [tile_pixels(n, ImageCall(3, multiple=8, minimum=16)) for n in (3, 17, 24, 25)] == [16, 24, 24, 32]


def test_one_row_of_tiles_is_reported_at_a_time() -> None:
    told: list[tuple[int, int]] = []
    in_tiles(nn.Identity(), RGB, noise(20, 20), tile=12, overlap=3, progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(1)
    model = promptir_tiny().eval()
    for parameter in model.parameters():  # attention and prompts that differ from place to place
        parameter.data.add_(0.2 * torch.randn(parameter.shape))
    return model


def hazy(height: int, width: int) -> Pixels:
    ramp = np.linspace(0, 160, width)[None, :, None]
    return (0.3 * noise(height, width) + ramp).astype(np.uint8)


def test_promptirs_tiles_have_the_whole_images_prompts_and_attention(net: nn.Module) -> None:
    call, picture = image_call(net), hazy(64, 128)
    whole = restored_floats(net, call, picture)
    parts = windows(picture, tile=64, overlap=16)
    fixed = of_whole_image(net, call, parts)
    own, shared = (in_tiles(m, call, picture, tile=64, overlap=16) / 255 for m in (net, fixed))
    assert np.abs(shared - whole).mean() < 0.6 * np.abs(own - whole).mean()
    seen: list[Tensor] = []
    for module in fixed.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _, given, made: seen.append(made.softmax(1)))
    for part in parts:
        restored_floats(fixed, call, part)
    assert len(seen) == 3 * len(parts)
    assert all(torch.equal(seen[i], seen[i % 3]) for i in range(len(seen)))


def test_one_tile_that_is_the_image_is_the_image(net: nn.Module) -> None:
    call, picture = image_call(net), hazy(32, 48)
    fixed = of_whole_image(net, call, [picture, picture])
    assert np.abs(restored_floats(fixed, call, picture) - restored_floats(net, call, picture)).max() < 1e-5
    assert of_whole_image(net, call, [picture]) is net
    assert all(name in dict(net.named_parameters()) for name in dict(fixed.named_parameters()))


def test_the_network_itself_stays_as_it_is(net: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    call, picture = image_call(net), hazy(48, 80)
    restored = Restorer(net, call, tile=32)(picture)
    assert restored.shape == picture.shape
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_tiles_are_used_when_asked_for_or_when_memory_would_not_do(
    net: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = image_call(net)
    assert [Restorer(net, call, tile=60).needs_tiles(*size) for size in ((64, 64), (64, 65))] == [False, True]
    for available, wanted in ((None, [False, True]), (10**15, [False, False]), (10**6, [False, True])):
        monkeypatch.setattr("prunekit_mir_l.restorer.available_bytes", lambda free=available: free)
        assert [Restorer(net, call).needs_tiles(*size) for size in ((64, 64), (2000, 2000))] == wanted
    monkeypatch.setattr("prunekit_mir_l.restorer.available_bytes", lambda: None)
    assert [Restorer(net, call).needs_tiles(512, width) for width in (512, 513)] == [False, True]


def test_peak_memory_is_that_of_all_tensors_held_at_a_time() -> None:
    def work() -> None:
        first = torch.zeros(1000)
        second = first + 1
        del first, second
        torch.zeros(1500)

    assert peak_bytes(work) == 8000
    assert peak_bytes(work) == 8000
