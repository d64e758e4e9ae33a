"""PromptIR against the published facts, and the fast forms against the plain transcription."""

from __future__ import annotations

import importlib.util
import json
import math
import zlib
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from prunekit.errors import RecipeError
from prunekit.native import kernels
from prunekit.sparse.engine import build as building
from prunekit.sparse.engine.tune import Memo
from prunekit_mir_l.blocks import Attention, FeedForward
from prunekit_mir_l.promptir import PromptIR

FIXTURES = Path(__file__).parent / "fixtures"
PLAIN = Path(__file__).parents[3] / "tests" / "benchmarks" / "promptir_plain.py"
SMALL = {
    "width": 8,
    "blocks": (1, 2, 1, 1),
    "refinement": 1,
    "heads": (1, 2, 4, 8),
    "prompt_heads": 2,
    "prompt_channels": (4, 8, 12),
    "prompt_sizes": (8, 4, 2),
    "prompts": 3,
}


def plain_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("promptir_plain", PLAIN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def set_by_formula_(model: nn.Module) -> None:
    for name, tensor in model.state_dict().items():
        phase = (zlib.crc32(name.encode()) % 1000) / 1000
        index = torch.arange(tensor.numel(), dtype=torch.float64)
        base = torch.sin(index * 0.7548776662466927 * (1 + phase) + 2 * math.pi * phase)
        if name.endswith("body.weight"):
            base = 1 + 0.1 * base
        elif name.endswith("bias"):
            base = 0.1 * base
        elif name.endswith("temperature"):
            base = 1 + 0.5 * base
        elif name.endswith("prompt_param"):
            base = 0.5 + 0.5 * base
        else:
            base = base * math.sqrt(2 / math.prod(tensor.shape[1:]))
        tensor.copy_(base.reshape(tensor.shape))


@pytest.fixture(scope="module")
def published() -> PromptIR:
    model = PromptIR()
    set_by_formula_(model)
    return model


def small_pair(dtype: torch.dtype = torch.float64) -> tuple[PromptIR, nn.Module]:
    torch.manual_seed(0)
    ours = PromptIR(**SMALL).to(dtype)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    plain = plain_module().PlainPromptIR(**SMALL).to(dtype)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def test_names_shapes_and_order_are_the_published_ones(published: PromptIR) -> None:
    expected = json.loads((FIXTURES / "promptir_state_dict.json").read_text())
    assert len(expected) == 548
    assert [(name, list(tensor.shape)) for name, tensor in published.state_dict().items()] == list(expected.items())
    assert sum(parameter.numel() for parameter in published.parameters()) == 35_592_263


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", ["48x72", "64x64"])
def test_outputs_are_the_published_ones(published: PromptIR, size: str, training: bool) -> None:
    reference = load_file(FIXTURES / "promptir_reference.safetensors")
    with torch.no_grad():
        output = published.train(training)(reference[f"input_{size}"])
    torch.testing.assert_close(output, reference[f"output_{size}"], rtol=0, atol=5e-6)


@pytest.mark.skipif(kernels() is None, reason="the kernels were not built: no C compiler at install")
def test_however_it_is_spelt_it_compiles_to_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "GAIN", math.inf)
    monkeypatch.setattr(building, "_choose_dense", lambda needed, memo: None)
    x, chains = torch.rand(1, 3, 32, 32), []
    for model in small_pair(torch.float32):
        plan = building.build(model.eval(), x, Memo(tmp_path))
        chains.append([[map.kind.name for map in chain.maps] for chain in plan.chains])
        with torch.no_grad():
            torch.testing.assert_close(plan(x), model(x), rtol=0, atol=1e-5)
    assert chains[0] == chains[1]
    assert {"GRAM", "NORM", "SPARSE", "DEPTHWISE", "DENSE"} <= set(chains[0][0] + chains[0][1])


def test_unused_convolutions_hold_the_published_count_and_can_be_left_out() -> None:
    unused = ("chnl_reduce", "reduce_noise_channel_")
    names = {n for n, _ in PromptIR(**SMALL).named_parameters()}  # type: ignore[arg-type]
    lean = {n for n, _ in PromptIR(**SMALL, unused=False).named_parameters()}  # type: ignore[arg-type]
    assert names - lean == {n for n in names if n.startswith(unused)}
    assert len(names - lean) == 6


def test_initial_values() -> None:
    torch.manual_seed(0)
    model = PromptIR(**SMALL)  # type: ignore[arg-type]
    for name, value in model.state_dict().items():
        if name.endswith(("body.weight", "temperature")):
            assert torch.equal(value, torch.ones_like(value)), name
        elif name.endswith("body.bias"):
            assert torch.equal(value, torch.zeros_like(value)), name
        elif name.endswith("prompt_param"):
            assert 0 <= value.min() < 0.1, name
            assert 0.9 < value.max() < 1, name
        elif value.ndim == 4:
            bound = 1 / math.sqrt(math.prod(value.shape[1:]))
            assert 0.5 * bound < value.abs().max() <= bound, name


@pytest.mark.parametrize("shape", [(1, 16, 24), (2, 32, 8), (1, 40, 56)])
@pytest.mark.parametrize("training", [False, True])
def test_any_multiple_of_eight_agrees_with_the_plain_form(shape: tuple[int, int, int], training: bool) -> None:
    ours, plain = small_pair()
    batch, height, width = shape
    x_bchw = torch.rand(batch, 3, height, width, dtype=torch.float64)
    torch.testing.assert_close(ours.train(training)(x_bchw), plain(x_bchw), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("training", [False, True])
def test_gradients_agree_with_the_plain_form(training: bool) -> None:
    ours, plain = small_pair()
    x_bchw, target = torch.rand(2, 2, 3, 16, 24, dtype=torch.float64)
    for model in (ours.train(training), plain):
        F.mse_loss(model(x_bchw), target).backward()
    grads = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    assert {name for name, p in ours.named_parameters() if p.grad is not None} == grads.keys()
    for name, parameter in ours.named_parameters():
        if name in grads:
            scale = float(grads[name].abs().max())
            torch.testing.assert_close(parameter.grad, grads[name], rtol=0, atol=1e-8 * scale, msg=name)


def test_second_derivatives_agree_with_the_plain_form() -> None:
    found = []
    for module in small_pair():
        x_bchw = torch.rand(1, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        wanted = [p for n, p in module.named_parameters() if n.startswith("latent")]
        grads = torch.autograd.grad(module(x_bchw).square().sum(), wanted, create_graph=True)
        penalty: Tensor = sum((g.square().sum() for g in grads), torch.zeros(()))
        found.append(torch.autograd.grad(penalty, wanted))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-6 * float(plain.abs().max()))


def test_a_channel_pruned_to_zero_gives_finite_gradients() -> None:
    attention = Attention(8, 2)
    with torch.no_grad():
        attention.qkv_dwconv.weight[:12] = 0
    attention(torch.randn(1, 8, 8, 8)).square().sum().backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all(), name


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(RecipeError, match="3 attention heads cannot share 8 channels"):
        PromptIR(**SMALL | {"heads": (3, 1, 1, 1)})  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="2 attention heads cannot share 77 channels"):
        PromptIR(**SMALL | {"prompt_channels": (4, 8, 13)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"width": 7}, "width must be even"),
        ({"blocks": (1, 1, 1)}, "blocks must be 4"),
        ({"prompt_sizes": (4, 0, 4)}, "prompt_sizes must be 3 positive"),
        ({"prompts": 0}, "1 prompt"),
    ],
)
def test_numbers_that_describe_no_network_are_refused(option: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        PromptIR(**SMALL | option)  # type: ignore[arg-type]


def test_hooks_see_every_used_convolution_in_evaluation() -> None:
    model = PromptIR(**SMALL, unused=False).eval()  # type: ignore[arg-type]
    seen: set[str] = set()
    convolutions = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    for name, module in convolutions.items():
        module.register_forward_hook(lambda *_, name=name: seen.add(name))
    model(torch.rand(1, 3, 16, 16))
    assert seen == convolutions.keys()


def test_bfloat16_autocast_stays_close_and_trains() -> None:
    ours, _ = small_pair(torch.float32)
    x_bchw = torch.rand(1, 3, 16, 16)
    exact = ours(x_bchw)
    with torch.autocast("cpu", torch.bfloat16):
        rough = ours(x_bchw)
    assert (rough - exact).abs().max() < 0.05 * (exact - x_bchw).abs().max()
    rough.square().mean().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in ours.parameters())


def test_feed_forward_gate_is_the_exact_gelu() -> None:
    layer = FeedForward(1)  # hidden width int(2.66) = 2
    with torch.no_grad():
        layer.project_in.weight.copy_(torch.ones(4, 1, 1, 1))
        layer.dwconv.weight.zero_()[:, 0, 1, 1] = 1
        layer.project_out.weight.fill_(0.5)
    out = layer(torch.full((1, 1, 1, 1), 1.5))
    assert out.item() == pytest.approx(1.5 * 1.5 * 0.5 * (1 + math.erf(1.5 / math.sqrt(2))), abs=1e-6)


@pytest.mark.slow
def test_compiles_without_graph_breaks_and_exports_at_any_size() -> None:
    ours, _ = small_pair(torch.float32)
    x_bchw = torch.rand(1, 3, 16, 24)
    compiled = torch.compile(ours, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x_bchw), ours(x_bchw), rtol=1e-4, atol=1e-5)
    height, width = (8 * torch.export.Dim(name, min=1, max=64) for name in ("rows", "columns"))
    program = torch.export.export(ours.eval(), (x_bchw,), dynamic_shapes=({2: height, 3: width},))
    larger = torch.rand(1, 3, 32, 40)
    torch.testing.assert_close(program.module()(larger), ours(larger), rtol=1e-4, atol=1e-5)
