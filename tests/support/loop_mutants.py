"""Named bugs in the event loop of closed loops, each of which the comparison with the model must catch."""

from __future__ import annotations

from mutate import Mutant, mutate

from ratelab.lab.closed_loop import answers, gates, instant_loop, loop, outcome, service, windows
from ratelab.lab.closed_loop.batches import Agenda, KeyStates
from ratelab.lab.closed_loop.engine import PythonLimiter
from ratelab.lab.closed_loop.instant_loop import InstantEngine
from ratelab.lab.closed_loop.reactions import ReactionTable

LOOPS = {
    "a client tries once too often": mutate(answers, "retry", ">= behavior[at.ATTEMPTS]", "> behavior[at.ATTEMPTS]"),
    "every failure is retried": mutate(answers, "retry", " or not behavior[at.RETRIED] >> failure & 1", ""),
    "a deadline is ignored": mutate(
        answers, "retry", "due > request[at.START_TIME] + behavior[at.DEADLINE]", "False"
    ),
    "a retry comes before its Retry-After": mutate(answers, "find_wait", "asked > wait", "False"),
    "jitter replaces a wait": mutate(answers, "add_jitter", "return wait + draw_part", "return draw_part"),
    "decorrelated jitter forgets its last wait": mutate(
        answers, "find_wait", "request[at.PREVIOUS_WAIT] = wait", "pass"
    ),
    "a budget never ends": mutate(
        gates, "pay_retry", "client[at.TOKENS] < behavior[at.TOKENS_PER_RETRY]", "False"
    ),
    "an answer at its timeout is too late": mutate(
        answers, "schedule_expiry", "order = at.EXPIRY_ORDER + number", "order = number"
    ),
    "an answer is sent to a client that has left": mutate(
        service, "answer", "if not entry[at.IS_AWAITED]:", "if False:"
    ),
    "an answer that comes too late is not wasted": mutate(
        loop, "receive", "entry[at.ANSWERED] == at.SUCCESS", "False"
    ),
    "a try inherits the timeout of another": mutate(loop, "expire", "entry[at.TRY_ID] != number", "False"),
    "the newest is served last": mutate(
        service, "dequeue", "totals[at.NEWEST] if server[at.IS_LIFO] else totals[at.OLDEST]", "totals[at.OLDEST]"
    ),
    "stale work is served": mutate(service, "dequeue", "server[at.DROP] == at.DROP_STALE", "False"),
    "the queue has a further place": mutate(service, "reach", ">= server[at.QUEUE]", "> server[at.QUEUE]"),
    "an outage holds nothing": mutate(service, "reach", "change[at.HOLDS_UNTIL] > now", "False"),
    "a write overwrites another": mutate(
        service, "write", "entry[at.VERSION] != world.totals[at.ROW_VERSION]", "False"
    ),
    "all clients draw the same latencies": mutate(
        service, "draw_latency", "world.streams[client]", "world.streams[0]"
    ),
    "a breaker stays open": mutate(
        gates, "find_breaker_state", "now < client[at.OPEN_UNTIL] or client[at.PROBING]", "True"
    ),
    "a breaker remembers old failures": mutate(gates, "trip", "client[at.CALLS] = client[at.FAILED] = 0", "pass"),
    "a window never slides": Mutant(windows, "advance", lambda window, bucket: None),
    "adaptive throttling counts only tries that are sent": mutate(
        gates, "throttles", "windows.count(window, bucket, 1, 0)", "pass"
    ),
    "a rate falls at every denial": mutate(
        gates, "adapt_rate", "now >= client[at.LOWERED_AT] + NS_PER_S", "True"
    ),
    "a turn is taken twice": mutate(
        gates, "take_turn", "turn + NS_PER_S * MILLION // client[at.RATE]", "turn"
    ),
    "hedges have no limit": mutate(loop, "send", "request[at.HEDGES] < behavior[at.MAX_HEDGES]", "True"),
    "a hedge that failed is the last": mutate(
        loop, "settle", "elif request[at.FIRST_TRY] == at.NONE:", "elif False:"
    ),
    "a spike leaves think times": mutate(
        answers, "end_request", "spike = world.changes[world.totals[at.CHANGE]][at.SPIKE]", "spike = 1"
    ),
    "a first try follows other events of its time": mutate(loop, "run", "first_due <= time", "first_due < time"),
    "decisions are those of a limiter that never restarts": mutate(
        outcome, "_advance", "restarts.append(int(totals[state.TRY_ROWS]))", "pass"
    ),
    "a limiter that restarts keeps its keys": Mutant(PythonLimiter, "restart", lambda self: None),
}  # fmt: skip
"""Bugs in clients, the server, gates and the order of events."""

INSTANT_LOOPS = {
    "a try that is added goes before others of its time": mutate(
        InstantEngine, "_decide", "[*times[1:], end]", "[*(time + 1 for time in times[1:]), end]"
    ),
    "tries of one time are in the order of their ends": mutate(
        Agenda, "add", "(self._near, events[is_near])", "(events[is_near], self._near)"
    ),
    "a first try goes after others of its time": mutate(
        Agenda, "_extend", "(firsts, self._near, far[is_near])", "(self._near, far[is_near], firsts)"
    ),
    "tries that are added soon wait for the next batch": mutate(
        InstantEngine, "_decide", "soon[0][0] < following", "False"
    ),
    "tries beyond those asked for are lost": mutate(
        InstantEngine, "_process", "self._agenda.add(batch.list_rest(tries))", "pass"
    ),
    "keys forget their hits": Mutant(KeyStates, "write", lambda self, states: None),
    "a limiter that restarts keeps its keys": mutate(InstantEngine, "_run", "self._states.restart()", "pass"),
    "draws ahead are drawn again": mutate(InstantEngine, "_list_next", "self._streams[used[is_known]] +=", "_ ="),
    "a draw ahead is drawn again soon": mutate(InstantEngine, "_list_next", "(known >= batch.end) & ", ""),
    "a retry names the wrong request": mutate(InstantEngine, "_react", "NONE - 1 - position", "NONE - 2 - position"),
    "a spike leaves think times": Mutant(InstantEngine, "_spike", 1),
    "a client requests once too often": mutate(InstantEngine, "_is_last", ">= reaction", "> reaction"),
    "a client requests once too often ahead": mutate(
        ReactionTable, "foresee", "ended[clients] + 1", "ended[clients]"
    ),
    "requests that end ahead are not counted": mutate(InstantEngine, "_list_next", "self._ended[", "clients["),
    "half a wait is a whole one": mutate(instant_loop, "create_reaction", "wait - wait // 2", "wait"),
    "a wait is that of the retry before": mutate(
        InstantEngine, "_react", "number - 1 if number", "number - 2 if 1 < number"
    ),
    "a wait ahead is that of the retry before": mutate(
        ReactionTable, "foresee", "np.minimum(numbers, ", "np.minimum(np.maximum(numbers - 1, 1), "
    ),
    "every denial is retried": mutate(
        instant_loop, "create_reaction", "if behavior[state.RETRIED] >> state.DENIED & 1 else 0", ""
    ),
}  # fmt: skip
"""Bugs in the loop of clients that know each result at once."""
