"""CallGate of call-gate, one for each key."""

from datetime import timedelta

from adapting import bounded, log_bound, per_key
from call_gate import CallGate
from call_gate.errors import ThrottlingError


@bounded(log_bound)
def simple(limit, period, burst):
    def make():
        size = timedelta(seconds=period)
        return CallGate("league", size, size / 10, gate_limit=limit)

    gate_of = per_key(make)

    def hit(key, cost=1):
        try:
            gate_of(key).update(cost, throw=True)
        except ThrottlingError:
            return False, None
        return True, None

    return hit
