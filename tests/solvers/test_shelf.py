"""Tensors side by side: where they stand, and what copies of them share."""

from __future__ import annotations

import torch

from sciode.solvers.engines.shelf import Columns, Shelf


def several() -> list[torch.Tensor]:
    return [
        torch.arange(6.0).reshape(2, 3).T,
        torch.tensor(7.0),
        torch.tensor([True, False, True]),
        torch.zeros(0),
        torch.arange(5),
        torch.tensor([1.5], dtype=torch.float64),
        torch.arange(4.0) + 1j,
    ]


def test_a_shelf_holds_the_values_and_shapes_of_what_it_was_made_of() -> None:
    shelf = Shelf(several(), apart={4})
    for x, y, z in zip(several(), shelf.tensors, shelf.copies({4}), strict=True):
        assert torch.equal(x, y) and torch.equal(x, z)
        assert x.dtype == y.dtype == z.dtype
        assert y.is_contiguous() and z.is_contiguous()


def test_places_do_not_overlap_begin_where_compiled_code_wants_it_and_stay() -> None:
    shelf = Shelf(several())
    before = [x.data_ptr() for x in shelf.tensors]
    for i, x in enumerate(shelf.tensors):
        x.fill_(i % 2)
    assert [x.data_ptr() for x in shelf.tensors] == before
    assert all(p % 16 == 0 for p in before)
    for i, x in enumerate(shelf.tensors):
        assert bool((x == i % 2).all())


def test_copies_are_the_callers_and_what_is_not_wanted_is_not_copied() -> None:
    shelf = Shelf(several(), apart={0, 4})
    found = shelf.copies({4})
    assert found[0] is shelf.tensors[0]
    for i, x in enumerate(found[1:], 1):
        x.zero_()
        assert torch.equal(shelf.tensors[i], several()[i])


def test_rows_lie_side_by_side_on_a_gpu_and_apart_on_a_cpu() -> None:
    line = several()
    for device in ("cpu", "meta"):
        columns = Columns(line)
        rows, again = columns(5, torch.device(device)), columns(5, torch.device(device))
        for x, row, other in zip(line, rows, again, strict=True):
            assert row.shape == (5, *x.shape) and row.dtype == x.dtype and row.is_contiguous()
            assert row.storage_offset() % 16 == 0
            assert row.untyped_storage()._cdata != other.untyped_storage()._cdata
        shared = {x.untyped_storage()._cdata for x in rows}
        assert len(shared) == (len(line) if device == "cpu" else len({x.dtype for x in line}))
