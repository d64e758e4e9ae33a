"""What rows of channels that must stay equally long make of what goes together, by hand."""

from __future__ import annotations

import numpy as np

from prunekit.structured.slots import Ids, Slots
from prunekit.structured.ties import tied


def slots(count: int) -> tuple[Slots, Ids]:
    """Return so many slots, which are 1, 2, ..."""
    made = Slots()
    return made, made.new(count)


def lists(ties: list[list[Ids]]) -> list[list[list[int]]]:
    return [[lane.tolist() for lane in tie] for tie in ties]


def test_rows_of_a_rectangle_are_lanes_of_one_tie() -> None:
    made, ids = slots(6)
    made.rectangle(ids.reshape(2, 3))
    root, ties = tied(made, [ids])
    assert root.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert lists(ties) == [[[1, 2, 3], [4, 5, 6]]]


def test_places_before_the_last_axis_make_a_row_each() -> None:
    made, ids = slots(8)
    made.rectangle(ids.reshape(2, 2, 2))
    assert lists(tied(made, [ids])[1]) == [[[1, 2], [3, 4], [5, 6], [7, 8]]]


def test_rows_that_go_together_index_by_index_need_no_tie() -> None:
    made, ids = slots(6)
    made.couple(ids[:3], ids[3:])
    made.rectangle(ids.reshape(2, 3))
    root, ties = tied(made, [ids])
    assert root.tolist() == [0, 1, 2, 3, 1, 2, 3]
    assert ties == []


def test_a_row_of_one_row_needs_no_tie() -> None:
    made, ids = slots(3)
    made.rectangle(ids)
    made.rectangle(ids.reshape(1, 3))
    assert tied(made, [ids])[1] == []


def test_a_rectangle_of_which_anything_stays_stays() -> None:
    made, ids = slots(7)
    made.keep(ids[2:3])
    made.rectangle(ids[:6].reshape(2, 3))
    assert tied(made, [ids])[0].tolist() == [0, 0, 0, 0, 0, 0, 0, 7]


def test_rectangles_that_share_rows_are_one_tie() -> None:
    made, ids = slots(6)
    made.rectangle(ids[:4].reshape(2, 2))
    made.rectangle(ids[2:].reshape(2, 2))
    assert lists(tied(made, [ids])[1]) == [[[1, 2], [3, 4], [5, 6]]]


def test_longer_rows_are_made_of_the_shorter_ones_in_them() -> None:
    made, ids = slots(8)
    made.rectangle(ids.reshape(2, 4))  # halves of a gate
    made.rectangle(ids.reshape(4, 2))  # of two heads each
    assert lists(tied(made, [ids])[1]) == [[[1, 2], [3, 4], [5, 6], [7, 8]]]


def test_rows_in_proportion_may_differ_in_length() -> None:
    made, ids = slots(6)
    made.in_proportion([ids[:4], ids[4:]])
    assert lists(tied(made, [ids])[1]) == [[[5, 6], [1, 2, 3, 4]]]


def test_a_row_that_has_another_in_it_is_that_and_the_rest() -> None:
    made, ids = slots(6)
    made.in_proportion([ids, ids[:2]])
    assert lists(tied(made, [ids])[1]) == [[[1, 2], [3, 4, 5, 6]]]


def test_in_proportion_to_what_stays_is_whole() -> None:
    made, ids = slots(4)
    made.keep(ids[:1])
    made.in_proportion([ids[:2], ids[2:]])
    root, ties = tied(made, [ids])
    assert root.tolist() == [0, 0, 0, 0, 0]
    assert ties == []


def test_channels_that_go_together_count_once_in_a_row_in_proportion() -> None:
    made, ids = slots(6)
    made.couple(ids[:2], ids[2:4])
    made.in_proportion([ids[:4], ids[4:]])
    assert lists(tied(made, [ids])[1]) == [[[1, 2], [5, 6]]]


def test_rows_that_overlap_go_index_by_index() -> None:
    made, ids = slots(6)
    made.rectangle(ids[:4].reshape(2, 2))
    made.rectangle(np.array([[2, 3], [5, 6]]))  # shares half of each row above
    root, ties = tied(made, [ids])
    assert root.tolist() == [0, 1, 2, 3, 4, 2, 3]  # the second one's rows by their places
    assert lists(ties) == [[[1, 2], [3, 4]]]


def test_rows_of_other_lengths_that_overlap_stay() -> None:
    made, ids = slots(5)
    made.rectangle(ids[:4].reshape(2, 2))
    made.in_proportion([np.array([2, 3, 5]), np.array([1, 4])])
    root, ties = tied(made, [ids])
    assert root[1:].tolist() == [0, 0, 0, 0, 0]
    assert ties == []


def test_what_is_all_of_an_axis_stays() -> None:
    made, ids = slots(5)
    made.couple(ids[:2], ids[:1])
    root, _ = tied(made, [ids[:2], ids[2:]])
    assert root.tolist() == [0, 0, 0, 3, 4, 5]


def test_a_tie_with_an_axis_of_one_is_whole_in_the_end() -> None:
    made, ids = slots(4)
    made.couple(ids[:2], ids[:1])  # all of the first axis, so it stays, and the second with it
    made.in_proportion([ids[:2], ids[2:]])
    assert tied(made, [ids[:2], ids[2:]])[0].tolist() == [0, 0, 0, 0, 0]
