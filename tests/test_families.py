"""Networks of timm and spandrel by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import spandrel
import torch
from torch import nn

import prunekit as pk
from prunekit.errors import CheckpointError, PluginError, PruneKitError, RecipeError
from prunekit.families import of_spandrel, of_timm
from prunekit.network import bind_network, build_bounded, is_harmless

SWINIR = {"name": "spandrel:SwinIR", "img_size": 16, "embed_dim": 8, "depths": [2], "num_heads": [2], "window_size": 8}
SMALL: list[dict[str, Any]] = [
    {"name": "spandrel:NAFNet", "width": 4, "enc_blk_nums": [1], "dec_blk_nums": [1]},
    {"name": "spandrel:DnCNN", "nc": 4, "nb": 9},
    {"name": "spandrel:DnCNN", "nc": 4, "nb": 9, "in_nc": 2, "mode": "FDnCNN"},
    SWINIR,
    {"name": "spandrel:DRUNet", "in_nc": 4, "out_nc": 3, "nc": [4, 4, 4, 4], "nb": 2},
    {"name": "spandrel:FBCNN", "nc": [4, 4, 4, 512], "nb": 2},
]
every_small = pytest.mark.parametrize(
    "spec",
    [pytest.param(spec, marks=pytest.mark.slow if spec["name"] == "spandrel:FBCNN" else ()) for spec in SMALL],
    ids=lambda spec: str(spec["name"]),
)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@every_small
def test_an_architecture_is_built_with_its_classs_own_options(spec: dict[str, Any]) -> None:
    bound = bind_network(spec)
    options = {key: value for key, value in spec.items() if key != "name"}
    direct = type(bound())(**options)
    assert list(bound().state_dict()) == list(direct.state_dict())  # no wrapper, no prefix
    assert parameters(bound()) == parameters(direct)
    assert spec.items() <= bound.tree.items() and bound.tree["weights"] is None  # type: ignore[attr-defined]


def test_options_that_no_recipe_can_hold_keep_their_defaults() -> None:
    bound = bind_network(SWINIR)
    assert "norm_layer" not in bound.tree and bound.tree["mlp_ratio"] == 4.0  # type: ignore[attr-defined]
    assert any(isinstance(module, nn.LayerNorm) for module in bound().modules())


@pytest.mark.slow
def test_every_architecture_of_spandrel_has_a_name() -> None:
    names = {str(each.architecture.id) for each in spandrel.MAIN_REGISTRY}
    several = {"KBNet": ("KBNet_l", "KBNet_s"), "RealCUGAN": ("UpCunet2x",), "PLKSR": ("PLKSR", "RealPLKSR")}
    for name in names - several.keys():
        assert issubclass(of_spandrel(name).func, nn.Module), name
    for name in (each for classes in several.values() for each in classes):
        assert of_spandrel(name).func.__name__ == name


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        ("spandrel:NAFNt", RecipeError, "spandrel has no architecture 'NAFNt': did you mean 'NAFNet'"),
        ("spandrel:nafnet", RecipeError, "did you mean 'NAFNet'"),
        ({"name": "spandrel:NAFNet", "widht": 8}, RecipeError, "network has no option 'widht': did you mean 'width'"),
        ({"name": "spandrel:NAFNet", "width": "wide"}, RecipeError, "network.width"),
        ("spandrel:SPAN", RecipeError, "network.num_in_ch is missing: add it to the recipe"),
        ("spandrel:SwinIR", RecipeError, "'spandrel:SwinIR' cannot be built with these options"),
        ("spandrel:nowhere.pth", CheckpointError, "nowhere.pth: there is no such file"),
        ("spandrel:folder/nowhere", CheckpointError, "folder/nowhere: there is no such file"),
    ],
)
def test_mistakes_name_the_cause(network: Any, error: type[PruneKitError], message: str) -> None:
    with pytest.raises(error, match=message):
        bind_network(network)()


@pytest.mark.parametrize("name", ["timm", "spandrel"])
def test_a_package_that_is_not_there_is_named_with_the_way_to_get_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PluginError, match=f"networks called {name}:.* need {name}, .*: pip install '.*{name}"):
        {"timm": of_timm, "spandrel": of_spandrel}[name]("NAFNet")


def saved(model: nn.Module, path: Path, prefix: str = "", holder: str | None = None) -> Path:
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    torch.save(state if holder is None else {holder: state, "iteration": 5}, path)
    return path


@pytest.mark.slow
@every_small
def test_a_weights_file_tells_the_architecture_and_its_options(tmp_path: Path, spec: dict[str, Any]) -> None:
    model = bind_network(spec)()
    path = saved(model, tmp_path / "published.pth")
    bound = bind_network(f"spandrel:{path}")
    tree = bound.tree  # type: ignore[attr-defined]
    assert spec.items() <= tree.items() and tree["weights"] == str(path)
    for built in (bound(), bind_network(tree)()):  # what a run notes builds the same again
        assert built.training
        assert built.state_dict().keys() == model.state_dict().keys()
        assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in built.state_dict().items())


@pytest.mark.parametrize(
    ("prefix", "holder"), [("net.", None), ("module.", "params"), ("", "params_ema"), ("net.module.", "state_dict")]
)
def test_wrappers_of_published_files_are_taken_off(tmp_path: Path, prefix: str, holder: str | None) -> None:
    model = bind_network(SMALL[0])()
    path = saved(model, tmp_path / "published.pth", prefix, holder)
    assert torch.equal(bind_network(f"spandrel:{path}")().intro.weight, model.intro.weight)  # type: ignore[union-attr, arg-type]


def test_options_beside_a_file_must_fit_it(tmp_path: Path) -> None:
    path = saved(bind_network(SMALL[0])(), tmp_path / "published.pth")
    with pytest.raises(CheckpointError, match=r"published.pth does not fit .*intro.weight \(file \[4, 3, 3, 3\], netw"):
        bind_network({"name": f"spandrel:{path}", "width": 8})()


def test_a_file_that_nothing_fits_is_refused(tmp_path: Path) -> None:
    path = saved(nn.Linear(3, 2), tmp_path / "linear.pth")
    with pytest.raises(
        CheckpointError, match="no architecture that .* fits .it begins with weight, bias.: name the net"
    ):
        bind_network(f"spandrel:{path}")


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    model = bind_network(SMALL[0])()
    del model.encoders
    with pytest.raises(CheckpointError, match="spandrel"):
        bind_network(f"spandrel:{saved(model, tmp_path / 'part.pth')}")


def test_a_ticket_of_a_weights_file_names_the_architecture_and_needs_no_file(tmp_path: Path) -> None:
    path = saved(bind_network(SMALL[2])(), tmp_path / "published.pth")
    ticket = pk.load(f"spandrel:{path}")
    assert ticket.trained and ticket.input_shape == (1, 2, 128, 128)
    model = ticket.model()
    masks = pk.prune(model, pk.Masks.dense(model), 0.5)
    masks.apply_(model)
    pk.save(model, masks, tmp_path / "ticket", network=f"spandrel:{path}")
    path.unlink()
    loaded = pk.load(tmp_path / "ticket")
    assert loaded.about.network == {**SMALL[2], "out_nc": 1, "act_mode": "BR"}
    assert torch.equal(loaded.model().model[0].weight, model.model[0].weight)  # type: ignore[index, union-attr]


@pytest.mark.slow
@every_small
def test_a_file_may_ask_for_an_architecture_with_plain_options(spec: dict[str, Any]) -> None:
    model = bind_network(spec)()
    tree = bind_network(spec).tree  # type: ignore[attr-defined]
    state = model.state_dict()
    entries = sum(tensor.numel() for tensor in state.values())
    assert is_harmless(tree)
    assert list(build_bounded(tree, tensors=len(state) + 9, entries=2 * entries).state_dict()) == list(state)


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "spandrel:weights.pth"},
        {"name": "spandrel:folder/weights"},
        {"name": "spandrel:C:weights"},
        {"name": "spandrel:NAFNet", "weights": "file"},
        {"name": "timm:spandrel:NAFNet"},
    ],
)
def test_a_file_may_not_ask_for_files(spec: dict[str, Any]) -> None:
    assert not is_harmless(spec)


def test_an_architecture_from_a_file_must_not_be_large() -> None:
    with pytest.raises(CheckpointError, match="far larger than what the file holds"):
        build_bounded({**SWINIR, "embed_dim": 20_000}, tensors=100, entries=10_000)
