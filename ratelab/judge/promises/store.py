"""Promise `store`: a store that restarts, stalls or drops replies neither fails open unasked nor charges twice.

A candidate with a store offers `FACTORY.store(url, limit, period, burst)`, which returns `hit(key)`, on a server of the
Redis protocol. A hit may raise an exception or be denied while the store fails. It is charged at most once if its reply
is dropped or late: of the quota, no more is gone than there were hits. While the store is unreachable, an exhausted
client gets at most one burst, as from a fallback in memory; `FACTORY.fails_open = True` declares that it gets
everything. When the store has restarted, without its data, it decides again within 40 hits, five seconds apart, and
admits one burst at most.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from ratelab.judge.candidate import Allotment, CandidateError
from ratelab.judge.store_server import FailingProxy, Fault, NoStore, StoreServer, run_store_server
from ratelab.judge.timeline import CLIENT, TimedHit
from ratelab.judge.trial import Bench, PromiseReport, Trial
from ratelab.quota import NS_PER_S

STORE_ALLOTMENT = Allotment(10, 36_000, 10)

REPLIES = (1, 2, 3)
"""The replies, after the first hits of a connection, of which one at a time is dropped."""

HITS_IN_OUTAGE = 3 * STORE_ALLOTMENT.burst

HITS_AFTER_RESTART = 40

HIT_PAUSE_NS = 5 * NS_PER_S

MAX_ERRORS = 5


def check(bench: Bench) -> PromiseReport:
    """Drop and stall replies, close connections, and restart the server."""
    if not hasattr(bench.candidate.factory, "store"):
        return PromiseReport(None, reason="has no store")
    usual = bench.clock.on_change, bench.watch.may_wait
    bench.watch.may_wait = True
    try:
        with run_store_server(bench.clock) as server, closing(FailingProxy(server.port)) as proxy:
            return _check(bench, server, proxy)
    except NoStore as error:
        return PromiseReport(None, reason=str(error))
    finally:
        bench.clock.on_change, bench.watch.may_wait = usual


def _check(bench: Bench, server: StoreServer, proxy: FailingProxy) -> PromiseReport:
    def start() -> Trial:
        trial = bench.start_with(lambda: bench.create_on_store(proxy.url, STORE_ALLOTMENT))
        for _ in range(2):  # connects, and loads scripts
            trial.hit("another client")
        trial.hits.clear()
        return trial

    quota = _count_rest(start())
    for fault, number in [*(("drop", number) for number in REPLIES), ("stall", 1)]:
        report = _fail_reply(start(), proxy, fault, number, quota)  # type: ignore[arg-type]
        if report is not None:
            return report
    return _fail_wholly(start, server, proxy, quota)


def _try_hit(trial: Trial) -> bool:
    """Hit, and return whether the hit was allowed; an exception is a hit without an answer."""
    at = trial.now_ns
    try:
        return trial.hit().allowed
    except CandidateError as error:
        trial.hits.append(TimedHit(at, trial.now_ns, CLIENT, False, None, f"{trial.note}: {error}".removeprefix(": ")))
        trial.note = ""
        return False


def _count_rest(trial: Trial) -> int:
    """Hit until the client is denied, and return how many were allowed."""
    before = len(trial.hits)
    errors = 0
    while len(trial.hits) - before < 3 * STORE_ALLOTMENT.burst and errors <= MAX_ERRORS:
        if not _try_hit(trial):
            if not trial.hits[-1].note:
                break
            errors += 1
            trial.move_to(trial.now_ns + HIT_PAUSE_NS)  # a circuit breaker closes again
    return sum(hit.allowed for hit in trial.hits[before:])


def _fail_reply(trial: Trial, proxy: FailingProxy, fault: Fault, number: int, quota: int) -> PromiseReport | None:
    """Hit while one reply is lost or late; return a report if that opened the limiter or charged twice."""
    hits = max(REPLIES) if fault == "drop" else 1
    trial.note = f"reply {number} is dropped" if fault == "drop" else "the reply stalls"
    proxy.fail(fault, number)
    allowed = sum([_try_hit(trial) for _ in range(hits)])
    proxy.pass_all()
    trial.note = "the store works again"
    rest = _count_rest(trial)
    figures = {
        **STORE_ALLOTMENT._asdict(),
        "fault": fault,
        "quota": quota,
        "hits": hits,
        "allowed": allowed,
        "rest": rest,
    }
    if rest < quota - hits:
        reason = f"{hits} hits took {quota - rest} of the quota: one was charged twice after its reply was lost"
        return PromiseReport(False, figures, trial.rows, reason)
    if allowed + rest > quota:
        reason = f"admitted {allowed + rest} instead of {quota} after a reply was lost"
        return PromiseReport(False, figures, trial.rows, reason)
    return None


def _fail_wholly(start: Callable[[], Trial], server: StoreServer, proxy: FailingProxy, quota: int) -> PromiseReport:
    """Hit an exhausted client while the store is down, then restart the store."""
    trial = start()
    _count_rest(trial)
    proxy.go_down()
    trial.note = "the store is down"
    opened = sum([_try_hit(trial) for _ in range(HITS_IN_OUTAGE)])
    figures = {**STORE_ALLOTMENT._asdict(), "quota": quota, "hits": HITS_IN_OUTAGE, "open": opened}
    if opened > quota and not getattr(trial.bench.candidate.factory, "fails_open", False):
        reason = f"admitted {opened} of {HITS_IN_OUTAGE} hits of an exhausted client while the store was down"
        return PromiseReport(False, figures, trial.rows, reason)
    server.restart()
    proxy.pass_all()
    trial.note = "the store has restarted, without its data"
    before = len(trial.hits)
    for _ in range(HITS_AFTER_RESTART):
        trial.move_to(trial.now_ns + HIT_PAUSE_NS)
        _try_hit(trial)
    admitted = sum(hit.allowed for hit in trial.hits[before:])
    figures["after_restart"] = admitted
    if not 0 < admitted <= quota:
        few = "none of them" if not admitted else f"{admitted} of them, more than the quota"
        reason = f"of {HITS_AFTER_RESTART} hits after a restart of the store, admitted {few}"
        return PromiseReport(False, figures, trial.rows, reason)
    return PromiseReport(True, figures)
