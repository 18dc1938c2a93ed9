"""Time with a case counts while the person works, as RootPainter counts it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_dinoaugseg.session.active_time import ActiveTime, active_seconds


def test_time_between_actions_counts_and_pauses_do_not() -> None:
    assert active_seconds([100, 105, 125, 146, 150]) == 5 + 20 + 4  # 21 s are a pause, 20 s are not
    assert active_seconds([150, 100, 105]) == 5
    assert active_seconds([100]) == active_seconds([]) == 0


def test_a_long_stroke_is_work_but_not_one_without_an_end() -> None:
    clock = ActiveTime()
    clock.act(0.0, held=True)
    assert clock.act(45.0) == 45.0
    clock.act(50.0, held=True)
    assert clock.act(50.0 + 86400) == 0.0
    assert clock.seconds == 50.0


def test_time_goes_on_where_it_stopped_and_another_case_does_not_count() -> None:
    clock = ActiveTime(12.0)
    clock.act(1000.0)
    assert clock.seconds == 12.0
    clock.act(1003.0)
    clock.pause()
    clock.act(1010.0)
    clock.act(1011.0)
    assert clock.seconds == 16.0


def test_a_clock_that_is_set_back_takes_nothing_away() -> None:
    clock = ActiveTime()
    clock.act(1000.0)
    assert clock.act(400.0) == 0.0
    assert clock.act(402.0) == 2.0


@given(st.lists(st.floats(0, 1e6), max_size=30), st.floats(0, 1e6))
def test_more_actions_never_make_less_time_than_the_span_allows(moments: list[float], more: float) -> None:
    seconds = active_seconds(moments)
    span = max(moments, default=0.0) - min(moments, default=0.0)
    assert 0.0 <= seconds <= span + 1e-6
    assert active_seconds([*moments, more]) >= seconds - 1e-6
    assert seconds <= 20.0 * max(len(moments) - 1, 0) + 1e-6
    assert active_seconds(reversed(moments)) == pytest.approx(seconds)
