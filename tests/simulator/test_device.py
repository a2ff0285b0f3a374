from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simattn.simulator.device import makespan

ONE = np.array([1])


def run(costs, sms, slots=1, speed=1.0, copies=1):
    costs = np.asarray(costs, float)
    return makespan(costs, np.array([0]), np.array([len(costs)]), np.array([copies]), sms, slots, speed)


def shared_speed_by_small_steps(costs, sms, slots, speed):
    """The same dispatch, written as plainly as possible: every SM runs its residents at an equal share of its speed."""
    waiting = list(costs)[::-1]
    resident = [[] for _ in range(sms)]
    for _ in range(slots):
        for sm in range(sms):
            if waiting:
                resident[sm].append(waiting.pop())
    now = 0.0
    share = [0.0, 1.0] + [speed / n for n in range(2, slots + 1)]
    while any(resident):
        step = min(min(left) / share[len(left)] for left in resident if left)
        now += step
        for sm, left in enumerate(resident):
            after = [x - step * share[len(left)] for x in left]
            kept = [x for x in after if x > 1e-9]
            done = len(left) - len(kept)
            resident[sm] = kept + [waiting.pop() for _ in range(min(done, len(waiting)))]
    return now


@given(
    costs=st.lists(st.floats(1, 1000), min_size=1, max_size=60),
    sms=st.integers(1, 9),
    slots=st.integers(1, 3),
    speed=st.floats(1, 2),
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_equals_the_plain_simulation(costs, sms, slots, speed):
    # Where two SMs are free at once but for rounding, either order is right: no two CTAs cost the same.
    costs = [cost + 1e-3 * sqrt(place + 2) for place, cost in enumerate(costs)]
    assert run(costs, sms, slots, speed) == pytest.approx(shared_speed_by_small_steps(costs, sms, slots, speed), rel=1e-9)


@given(costs=st.lists(st.floats(0.1, 1000), min_size=1, max_size=80), sms=st.integers(1, 20))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_lies_between_the_bounds_of_list_scheduling(costs, sms):
    ends = run(costs, sms)
    assert ends >= max(max(costs), sum(costs) / sms) * (1 - 1e-12)
    assert ends <= (sum(costs) / sms + max(costs)) * (1 + 1e-12)


def test_waves_and_tail():
    assert run([10.0] * 132, 132) == 10
    assert run([10.0] * 133, 132) == 20
    assert run([10.0] * 4, 2, slots=2, speed=1.0) == 20


def test_longest_last_costs_a_tail():
    costs = [1.0] * 9 + [10.0]
    assert run(costs[::-1], 2) < run(costs, 2)


def test_copies_are_launched_one_after_the_other():
    assert run([3.0, 1.0], 1, copies=5) == run([3.0, 1.0] * 5, 1)
