"""What part of everything is a process's own."""

from __future__ import annotations

import pytest

from estgw.gateway.worker_share import ALONE, WorkerShare


@pytest.mark.parametrize("whole", [1, 2, 7, 8, 100, 1000])
@pytest.mark.parametrize("of", [1, 2, 3, 8, 64])
def test_parts_add_up(whole, of):
    parts = [WorkerShare(index, of).part(whole) for index in range(of)]
    assert sum(parts) == max(whole, of)
    assert max(parts) - min(parts) <= 1


def test_who_is_alone_has_all():
    assert ALONE.part(8) == 8
