"""Parts of the engine as laws: places in memory, views of maps against real tensors, what is remembered of races."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prunekit.sparse.engine.maps import Kind, Map
from prunekit.sparse.engine.memory import ALIGNED, Span, pack
from prunekit.sparse.engine.tune import Memo
from prunekit.sparse.engine.views import View, arrange, narrow, normal, permute, reshape, whole

Draw = Callable[[st.SearchStrategy[Any]], Any]


@st.composite
def spans(draw: Draw) -> list[Span]:
    out = []
    for what in range(draw(st.integers(0, 12))):
        first, last = sorted(draw(st.tuples(st.integers(0, 9), st.integers(0, 9))))
        out.append(Span(what, first, last, draw(st.integers(0, 100))))
    return out


@given(spans=spans())
def test_what_is_there_at_the_same_time_does_not_overlap(spans: list[Span]) -> None:
    places, floats = pack(spans)
    assert places.keys() == {span.what for span in spans}
    for step in range(10):
        taken = [i for s in spans if s.first <= step <= s.last for i in range(places[s.what], places[s.what] + s.size)]
        assert len(taken) == len(set(taken))
        assert not taken or (min(taken) >= 0 and max(taken) < floats)
    assert all(at % ALIGNED == 0 for at in places.values())


def test_what_is_there_at_other_times_shares_its_place() -> None:
    assert pack([Span(step, step, step, 100) for step in range(50)]) == (dict.fromkeys(range(50), 0), 100)


@st.composite
def moves(draw: Draw) -> tuple[View, Tensor, Tensor]:
    """A map in memory, and a tensor made of it as networks make theirs, next to the view that ought to be the same."""
    sizes = st.sampled_from([1, 2, 3, 4, 6])
    shape = (draw(sizes), draw(st.sampled_from([1, 6, 12, 24])), draw(sizes), draw(sizes))
    stored = x = torch.arange(math.prod(shape), dtype=torch.float32).view(shape)
    view = View(Map(Kind.LOAD, shape), 0, whole(shape, shape[1]))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, x.dim() - 1))
        how = draw(st.sampled_from(["permute", "split", "join", "narrow"]))
        made: View | None
        if how == "permute":
            order = draw(st.permutations(range(x.dim())))
            made, y = permute(view, order), x.permute(order)
        elif how == "narrow":
            start = draw(st.integers(0, x.shape[at] - 1))
            length = draw(st.integers(1, x.shape[at] - start))
            made, y = narrow(view, at, start, length), x.narrow(at, start, length)
        else:
            new = list(x.shape)
            if how == "split":
                part = draw(st.sampled_from([d for d in range(1, new[at] + 1) if new[at] % d == 0]))
                new[at : at + 1] = [part, new[at] // part]
            else:
                new[at : at + 2] = [math.prod(new[at : at + 2])]
            made, y = reshape(view, new), x.reshape(new)
        if made is not None:
            view, x = made, y
    return view, x, stored


@given(moved=moves())
def test_a_view_is_what_torch_makes_of_the_map(moved: tuple[View, Tensor, Tensor]) -> None:
    view, x, stored = moved
    for same in (view, normal(view)):
        assert same.shape() == tuple(x.shape)
        assert same.channels * stored[:, 0].numel() == x.numel() or stored.shape[1] == 1
        held = stored[:, same.start : same.start + same.channels]
        assert torch.equal(arrange(held, same.dims), x)
    assert view.standard == (tuple(x.shape) == (len(stored), view.channels, *stored.shape[2:]) and view.adjacent
                             and torch.equal(x, stored[:, view.start : view.start + view.channels]))  # fmt: skip


def test_channels_that_are_no_neighbours_are_no_view() -> None:
    shape = (2, 24, 3, 5)
    heads = reshape(View(Map(Kind.LOAD, shape), 0, whole(shape, 24)), (2, 4, 6, 15))
    assert heads is not None
    assert narrow(heads, 2, 0, 2) is None  # the first 2 of 6 channels of each head
    assert narrow(heads, 3, 0, 2) is None  # some of the pixels
    part = narrow(heads, 1, 1, 2)
    assert part is not None and (part.start, part.channels) == (6, 12)


def test_what_does_not_divide_is_no_view() -> None:
    shape = (2, 4, 3, 5)
    assert reshape(View(Map(Kind.LOAD, shape), 0, whole(shape, 4)), (3, 4, 2, 5)) is None


def never() -> list[Callable[[], Any]]:
    raise AssertionError("it was measured already")


def test_what_was_measured_is_remembered_by_the_next_process(tmp_path: Path) -> None:
    calls: list[str] = []
    memo = Memo(tmp_path / "new" / "folder")
    ways: list[Callable[[], Any]] = [lambda: calls.append("a"), lambda: calls.append("b")]
    measured = memo.seconds(("1x1", 48), lambda: ways)
    assert calls == ["a", "b"] * 5 and len(measured) == 2 and min(measured) >= 0
    assert memo.seconds(("1x1", 48), never) == measured
    memo.save()
    assert Memo(tmp_path / "new" / "folder").seconds(("1x1", 48), never) == measured
    with pytest.raises(AssertionError, match="already"):
        memo.seconds(("1x1", 49), never)


def test_other_threads_are_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memo = Memo(tmp_path)
    memo.seconds("it", lambda: [lambda: None])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    with pytest.raises(AssertionError, match="already"):
        memo.seconds("it", never)


@pytest.mark.parametrize(
    "damaged",
    [b"", b"{", b"\xff\xfe", b"null", b"[1, 2]", b"7", b'{"1 it": 7}', b'{"1 it": ["x"]}', b'{"1 it": [1, null]}'],
)
def test_a_damaged_file_is_measured_anew_and_mended(tmp_path: Path, damaged: bytes) -> None:
    first = Memo(tmp_path)
    first.seconds("it", lambda: [lambda: None])
    first.save()
    (file,) = tmp_path.iterdir()
    file.write_bytes(damaged)
    memo = Memo(tmp_path)
    (seconds,) = memo.seconds("it", lambda: [lambda: None])
    assert seconds >= 0
    memo.save()
    assert list(json.loads(file.read_text())) == ["1 it"]
    assert Memo(tmp_path).seconds("it", never) == [seconds]


def test_a_folder_that_cannot_be_written_to_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    memo = Memo(tmp_path / "file" / "below")
    memo.seconds("it", lambda: [lambda: None])
    memo.save()
    assert memo.seconds("it", never)


def test_a_memo_that_learned_nothing_writes_nothing(tmp_path: Path) -> None:
    Memo(tmp_path).save()
    assert not list(tmp_path.iterdir())


def test_the_cache_folder_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    memo = Memo()
    memo.seconds("it", lambda: [lambda: None])
    memo.save()
    assert [file.parent for file in tmp_path.rglob("*.json")] == [tmp_path / "prunekit"]
