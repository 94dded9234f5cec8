"""The share of each limit that one worker gets."""

from __future__ import annotations

import pytest

from estgw.gateway.worker_share import ALONE, WorkerShare


@pytest.mark.parametrize("whole", [1, 2, 7, 8, 100, 1000])
@pytest.mark.parametrize("of", [1, 2, 3, 8, 64])
def test_worker_shares_sum_to_the_limit_and_differ_by_at_most_one(whole, of):
    parts = [WorkerShare(index, of).part(whole) for index in range(of)]
    assert sum(parts) == max(whole, of)
    assert max(parts) - min(parts) <= 1


def test_a_single_worker_has_the_whole_limit():
    assert ALONE.part(8) == 8
