"""A slow model of a closed loop: objects, functions as events in a sorted list, and exact fractions."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from hashlib import blake2b
from typing import Any

from ratelab.algorithms import Policy
from ratelab.lab.closed_loop.behavior import Behavior, Delay, Population
from ratelab.lab.closed_loop.outcome import ABANDONED, DENIED, ERROR, GAVE_UP, PENDING, SHED, SUCCESS, TIMEOUT
from ratelab.limiter import NEVER

SECOND = 10**9
LOCAL = "local"
NAMES = {"denied": DENIED, "error": ERROR, "timeout": TIMEOUT, "shed": SHED, "local": LOCAL}
PURPOSES = ("think", "retry", "network", "service", "error", "throttle", "start", "cost")


def mix(word: int) -> int:
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
    return word ^ word >> 31


class Stream:
    """The draws of one client for one purpose."""

    def __init__(self, seed: int, name: str, purpose: str) -> None:
        digest = blake2b(f"{seed}/{name}/loop".encode(), digest_size=8).digest()
        self.key = mix((int.from_bytes(digest, "big") + 0xD1B54A32D192ED03 * (PURPOSES.index(purpose) + 1)) % 2**64)
        self.draws = 0

    def uniform(self) -> float:
        self.draws += 1
        return ((mix((self.key + self.draws * 0x9E3779B97F4A7C15) % 2**64) >> 11) + 1) / 2**53

    def exponential(self) -> float:
        return negative_log(self.uniform())

    def normal(self) -> float:
        while True:
            x, y = 2 * self.uniform() - 1, 2 * self.uniform() - 1
            square = x * x + y * y
            if 0 < square < 1:
                return x * math.sqrt(2 * negative_log(square) / square)

    def part(self, most: int) -> int:
        return int(most * self.uniform())

    def delay(self, delay: Delay | None) -> int:
        if delay is None:
            return 0
        mean, deviation = delay.mean, delay.deviation
        match delay.kind:
            case "constant":
                return mean
            case "exponential":
                return int(mean * self.exponential())
            case "normal":
                return int(abs(mean + deviation * self.normal()))
            case "table":
                return self.choose(list(zip(delay.values, delay.weights, strict=True)))
        if not deviation:
            return mean
        if deviation <= mean:
            return mean - deviation + int(deviation * self.exponential())
        square = (deviation / mean) * (deviation / mean)
        share = (1 + math.sqrt((square - 1) / (square + 1))) / 2
        phase = int(mean / (2 * share)) if self.uniform() <= share else int(mean / (2 * (1 - share)))
        return int(phase * self.exponential())

    def choose(self, weights: Sequence[tuple[int, float]]) -> int:
        total = 0.0
        sums = [total := total + weight for _, weight in weights]
        drawn = self.uniform() * total
        return next((value for (value, _), bound in zip(weights, sums, strict=True) if drawn <= bound), weights[-1][0])


def negative_log(number: float) -> float:
    mantissa, exponent = math.frexp(number)
    z = (mantissa - 0.7071067811865476) / (mantissa + 0.7071067811865476)
    series = 0.0
    for power in range(21, 0, -2):
        series = series * (z * z) + 1.0 / power
    return max(0.0, -(exponent * 0.6931471805599453 - 0.34657359027997264 + 2.0 * (z * series)))


class Counts:
    """Times at which something happened, of which those in the last 30 buckets count."""

    def __init__(self, window: int | None) -> None:
        self.width = None if window is None else -(-window // 30)
        self.times: list[int] = []

    def add(self, now: int) -> None:
        self.times.append(now)

    def count(self, now: int) -> int:
        if self.width is None:
            return len(self.times)
        return sum(time // self.width > now // self.width - 30 for time in self.times)


class Client:
    def __init__(self, model: Model, number: int, name: str, behavior: Behavior) -> None:
        self.model, self.number, self.behavior = model, number, behavior
        for purpose in PURPOSES:
            setattr(self, purpose, Stream(model.population.seed, name, purpose))
        retry, breaker = behavior.retry, behavior.breaker
        self.started = 0
        self.tokens = Fraction(retry.budget.cap) if retry.budget else Fraction(0)
        self.calls, self.failed = (Counts(breaker.window if breaker else None) for _ in range(2))
        self.open_until: int | None = None
        self.probing = False
        self.asked, self.accepted = (Counts(behavior.adaptive.window if behavior.adaptive else None) for _ in range(2))
        self.turn = 0
        self.rate = behavior.aimd.rate if behavior.aimd else 0
        self.raised = self.lowered = -SECOND

    def __getattr__(self, name: str) -> Stream:
        raise AttributeError(name)

    # --- requests

    def start_first(self) -> None:
        behavior = self.behavior
        wait = behavior.pace or behavior.think
        begin = 0
        if wait and wait.kind == "exponential":
            begin = int(wait.mean * self.start.exponential())
        elif wait and wait.mean:
            begin = int(wait.mean * (1 - self.start.uniform()))
        if behavior.requests != 0:
            self.model.at(begin, self.begin)

    def begin(self, now: int, cost: int | None = None) -> None:
        costs = self.behavior.costs
        if cost is None:
            cost = self.cost.choose(costs) if len(costs) > 1 else costs[0][0]
        self.started += 1
        budget = self.behavior.retry.budget
        if budget and budget.on == "start":
            self.deposit()
        if self.behavior.breaker and self.behavior.breaker.stops == "retries":
            self.calls.add(now)
        request = Request(self, cost, now)
        self.model.requests.append(request)
        self.attempt(request, now)

    def deposit(self) -> None:
        budget = self.behavior.retry.budget
        assert budget
        self.tokens = min(Fraction(budget.cap), self.tokens + Fraction(int(budget.ratio * 10**6), 10**6))

    def end(self, request: Request, result: int, now: int) -> None:
        request.ended, request.result = now, result
        for sent in request.unanswered:
            sent.leave(ABANDONED, now)
        request.unanswered = []
        behavior = self.behavior
        if behavior.loop != "serial" or (behavior.requests is not None and self.started >= behavior.requests):
            return
        spike = self.model.spike(now)
        begin = now + self.think.delay(behavior.think) // spike
        if behavior.pace is not None:
            begin = max(begin, request.started + self.think.delay(behavior.pace) // spike)
        self.model.at(begin, self.begin)

    # --- tries

    def attempt(self, request: Request, now: int) -> None:
        sent = Try(request)
        request.unanswered.append(sent)
        if self.behavior.aimd:
            turn = max(now, self.turn)
            self.turn = turn + 10**15 // self.rate
            if turn > now:
                self.model.at(turn, partial(self.send, sent))
                return
        self.send(sent, now)

    def send(self, sent: Try, now: int) -> None:
        if not sent.awaited:
            return
        request = sent.request
        request.tries += 1
        if self.rejects(sent, now):
            self.model.rejected += 1
            request.unanswered.remove(sent)
            self.fail(request, LOCAL, 0, now)
            return
        sent.number, sent.sent = request.tries, now
        sent.order = self.model.count_try()
        behavior = self.behavior
        if behavior.timeout is not None:
            self.model.expire_at(now + behavior.timeout, sent.order, partial(self.expire, sent))
        arrival: partial[None] | None = None
        if behavior.latency is not None:
            arrival = partial(self.model.arrive, sent)
        elif not self.model.decide(sent, now):
            return
        if behavior.hedge and request.hedges < behavior.hedge.most:
            request.hedge = sent
            self.model.at(now + behavior.hedge.after, partial(self.hedge, request, sent))
        if arrival is None:
            self.model.pass_on(sent, now)
        else:
            self.model.at(now + self.network.delay(behavior.latency), arrival)

    def rejects(self, sent: Try, now: int) -> bool:
        throttled = False
        if self.behavior.adaptive:
            asked, accepted = self.asked.count(now), self.accepted.count(now)
            self.asked.add(now)
            k = Fraction(int(self.behavior.adaptive.k * 10**6), 10**6)
            excess = asked - k * accepted
            if excess > 0:
                share = float(excess * 10**6) / float((asked + 1) * 10**6)
                throttled = self.throttle.uniform() <= share
        if not self.behavior.breaker or self.behavior.breaker.stops == "retries":
            return throttled
        is_open = self.open_until is not None and (now < self.open_until or self.probing)
        if throttled or is_open:
            return True
        if self.open_until is not None:
            self.probing = sent.is_probe = True
        return False

    def hedge(self, request: Request, sent: Try, now: int) -> None:
        if request.hedge is sent and request.unanswered:
            request.hedge = None
            request.hedges += 1
            self.attempt(request, now)

    def expire(self, sent: Try, now: int) -> None:
        if sent.awaited:
            self.know(sent, TIMEOUT, 0, now)

    # --- results

    def know(self, sent: Try, result: int, wait: int, now: int) -> None:
        request = sent.request
        request.unanswered.remove(sent)
        sent.leave(result, now)
        self.learn(result, sent.is_probe, now)
        if result == SUCCESS:
            budget = self.behavior.retry.budget
            if budget and budget.on == "success":
                self.deposit()
            self.end(request, SUCCESS, now)
        else:
            self.fail(request, result, wait, now)

    def learn(self, result: int, is_probe: bool, now: int) -> None:
        behavior = self.behavior
        if behavior.adaptive and result in (SUCCESS, ERROR):
            self.accepted.add(now)
        breaker = behavior.breaker
        if breaker and breaker.stops == "retries" and result != SUCCESS:
            self.failed.add(now)
        if breaker and breaker.stops == "calls":
            if is_probe:
                self.probing = False
                self.open_until = None if result == SUCCESS else now + breaker.pause
                if result == SUCCESS:
                    self.calls, self.failed = Counts(breaker.window), Counts(breaker.window)
            elif self.open_until is None:
                self.calls.add(now)
                if result != SUCCESS:
                    self.failed.add(now)
                    if self.calls.count(now) >= 10 and self.exceeds(now):
                        self.open_until = now + breaker.pause
        if behavior.aimd:
            if result == SUCCESS and now - self.raised >= SECOND:
                self.raised, self.rate = now, min(self.rate + behavior.aimd.increase, 10**12)
            if result in (DENIED, SHED) and now - self.lowered >= SECOND:
                decrease = Fraction(int(behavior.aimd.decrease * 10**6), 10**6)
                self.lowered, self.rate = now, max(int(self.rate * decrease), 10**5)

    def exceeds(self, now: int) -> bool:
        breaker = self.behavior.breaker
        assert breaker
        share = Fraction(int(breaker.failures * 10**6), 10**6)
        return self.failed.count(now) > share * self.calls.count(now)

    def fail(self, request: Request, failure: Any, asked: int, now: int) -> None:
        if request.unanswered:
            return
        request.hedge = None
        retry, breaker = self.behavior.retry, self.behavior.breaker
        may_retry = (
            retry.policy != "none"
            and (retry.attempts is None or request.tries < retry.attempts)
            and failure in [NAMES[name] for name in retry.retry_on]
            and not (breaker and breaker.stops == "retries" and self.exceeds(now))
        )
        if may_retry:
            due = now + self.wait(request, asked)
            is_early = retry.deadline is None or due <= request.started + retry.deadline
            if is_early and (not retry.budget or self.tokens >= retry.budget.cost):
                self.tokens -= retry.budget.cost if retry.budget else 0
                request.retries += 1
                self.model.at(due, partial(self.attempt, request))
                return
        self.end(request, GAVE_UP, now)

    def wait(self, request: Request, asked: int) -> int:
        retry, draw = self.behavior.retry, self.retry
        full, half = retry.jitter == "full", retry.jitter == "equal"
        grown = int(min(Fraction(retry.cap), retry.base * retry.multiplier**request.retries))
        if retry.policy == "retry-after" and asked:
            return asked + (draw.part(asked) if full else draw.part(asked // 2) if half else 0)
        match retry.policy:
            case "immediate":
                wait = retry.base
            case "fixed" | "exponential" | "retry-after":
                wait = retry.base if retry.policy == "fixed" else grown
                if full:
                    wait = draw.part(wait)
                elif half:
                    wait = wait // 2 + draw.part(wait - wait // 2)
            case "equal-jitter":
                wait = grown // 2 + draw.part(grown - grown // 2)
            case "full-jitter":
                wait = draw.part(grown)
            case "decorrelated-jitter":
                previous = retry.base if request.previous is None else request.previous
                wait = min(retry.cap, retry.base + draw.part(max(0, 3 * previous - retry.base)))
                request.previous = wait
        if retry.honors != "none" and asked > wait:
            return asked + (draw.part(asked) if full else draw.part(asked // 2) if half else 0)
        return wait


class Request:
    def __init__(self, client: Client, cost: int, now: int) -> None:
        self.client, self.cost, self.started = client, cost, now
        self.ended, self.result = -1, PENDING
        self.tries = self.retries = self.hedges = 0
        self.previous: int | None = None
        self.hedge: Try | None = None
        self.unanswered: list[Try] = []


class Try:
    def __init__(self, request: Request) -> None:
        self.request, self.client = request, request.client
        self.awaited, self.is_probe, self.wasted, self.delay = True, False, False, 0
        self.number = self.sent = self.order = 0
        self.arrived = self.served = self.ended = -1
        self.result = PENDING
        self.row: Any = None

    def leave(self, result: int, now: int) -> None:
        self.awaited, self.result, self.ended = False, result, now
        if result == ABANDONED and self.is_probe:
            self.client.probing = False


class Model:
    def __init__(self, policy: Policy | None, population: Population, max_events: int = 10**9) -> None:
        self.policy, self.population, self.max_events = policy, population, max_events
        self.events: list[tuple[int, int, int, Callable[[int], None]]] = []
        self.sequence = self.sent = self.rejected = 0
        self.requests: list[Request] = []
        self.tries: list[Try] = []
        self.states: dict[int, list[int]] = {}
        self.restarts = sorted(fault.begin for fault in population.faults if fault.kind == "limiter-restart")
        self.restarts = [time for time in self.restarts if time > 0]
        self.in_service, self.version = 0, 0
        self.queue: list[tuple[int, Try]] = []
        self.server = population.server
        names = population.first_tries.names
        self.clients = [
            Client(self, number, name, population.behaviors[population.behavior_of[number]])
            for number, name in enumerate(names)
        ]

    def run(self) -> bool:
        """Process all events, and return whether there were not too many."""
        for time, client, cost in self.first_tries():
            self.at(time, partial(self.clients[client].begin, cost=cost), first=True)
        for each in self.clients:
            if each.behavior.loop == "serial":
                each.start_first()
        while self.events:
            time, *_, event = self.events.pop(0)
            if time >= self.population.duration:
                break
            if self.sequence > self.max_events:
                return False
            while self.restarts and self.restarts[0] <= time:
                self.restarts.pop(0)
                self.states = {}
            event(time)
        return True

    # --- events

    def at(self, time: int, event: Callable[..., None], first: bool = False) -> None:
        self.sequence += 1
        insort(self.events, (time, 0 if first else 1, self.sequence, event), key=lambda entry: entry[:3])

    def expire_at(self, time: int, order: int, event: Callable[[int], None]) -> None:
        insort(self.events, (time, 2, order, event), key=lambda entry: entry[:3])

    def count_try(self) -> int:
        self.sent += 1
        return self.sent

    def active(self, kind: str, now: int) -> list[Any]:
        return [fault for fault in self.population.faults if fault.kind == kind and fault.begin <= now < fault.end]

    def spike(self, now: int) -> int:
        return math.prod(fault.factor for fault in self.active("spike", now))

    def first_tries(self) -> list[tuple[int, int, int]]:
        traffic = self.population.first_tries
        tries = list(zip(traffic.times.tolist(), traffic.clients.tolist(), traffic.costs.tolist(), strict=True))
        for fault in self.population.faults:
            if fault.kind != "spike":
                continue
            copies = []
            for number, (time, client, cost) in enumerate(tries):
                if fault.begin <= time < fault.end:
                    later = [other for other, owner, _ in tries[number + 1 :] if owner == client]
                    gap = min([fault.end, *later[:1]]) - time
                    copies += [
                        (copy, time + gap * copy // fault.factor, client, cost) for copy in range(1, fault.factor)
                    ]
            copies.sort(key=lambda entry: entry[0])  # all first copies, then all second ones
            tries = sorted(tries + [copy[1:] for copy in copies], key=lambda entry: entry[0])
        return tries

    # --- the limiter

    def arrive(self, sent: Try, now: int) -> None:
        """Let a try arrive over the network."""
        allowed, delay, wait = self.hit(sent, now)
        if not allowed:
            self.reply(sent, DENIED, wait, now)
        elif delay:
            self.at(now + delay, partial(self.reach, sent))
        else:
            self.reach(sent, now)

    def decide(self, sent: Try, now: int) -> bool:
        """Decide a try that arrives when it is sent; return whether it has no answer yet."""
        allowed, delay, wait = self.hit(sent, now)
        sent.delay = delay
        if not allowed:
            sent.client.know(sent, DENIED, wait, now)
        elif not delay and not self.has_server:
            sent.served = now
            sent.client.know(sent, SUCCESS, 0, now)
        else:
            return True
        return False

    def pass_on(self, sent: Try, now: int) -> None:
        if sent.delay:
            self.at(now + sent.delay, partial(self.reach, sent))
        else:
            self.reach(sent, now)

    def hit(self, sent: Try, now: int) -> tuple[bool, int, int]:
        sent.arrived = now
        self.tries.append(sent)
        clock = now + self.population.first_tries.origin
        if self.policy is None:
            sent.row = (True, 0, 0, 0, 0)
            return True, 0, 0
        key = int(self.population.first_tries.keys[sent.client.number])
        if key not in self.states:
            self.states[key] = self.policy.start(clock)
        sent.row = self.policy.step(self.states[key], clock, sent.request.cost)
        allowed, _, retry_after, reset_after, delay = sent.row
        if allowed:
            return True, delay, 0
        if retry_after == NEVER:
            retry_after = reset_after if sent.client.behavior.retry.honors == "ratelimit" else 0
        return False, 0, math.ceil(Fraction(retry_after, SECOND)) * SECOND

    # --- the server

    @property
    def has_server(self) -> bool:
        return self.server is not None or any(fault.kind in ("outage", "slow") for fault in self.population.faults)

    def reach(self, sent: Try, now: int) -> None:
        outages = self.active("outage", now)
        server = self.server
        if any(not fault.hold for fault in outages):
            self.reply(sent, SHED, 0, now)
        elif outages:
            self.at(max(fault.end for fault in outages), partial(self.reach, sent))
        elif not self.has_server:
            self.serve(sent, SUCCESS, now)
        elif server is None:
            self.begin_service(sent, now)
        elif server.optimistic:
            wait = sent.client.network.delay(sent.client.behavior.latency)
            wait += sent.client.network.delay(sent.client.behavior.latency)
            self.at(now + wait, partial(self.write, sent, self.version))
        elif server.workers is None or self.in_service < server.workers:
            self.begin_service(sent, now)
        elif server.queue is not None and len(self.queue) >= server.queue:
            self.reply(sent, SHED, 0, now)
        else:
            self.queue.append((now, sent))
            while server.drop == "count" and len(self.queue) > server.drop_limit:
                self.reply(self.queue.pop(0)[1], SHED, 0, now)

    def write(self, sent: Try, version: int, now: int) -> None:
        if version == self.version:
            self.version += 1
            self.serve(sent, SUCCESS, now)
        else:
            self.serve(sent, ERROR, now)

    def begin_service(self, sent: Try, now: int) -> None:
        self.in_service += 1
        time = 0
        if self.server:
            time = sent.client.service.delay(self.server.service) + self.server.slowdown * self.in_service
        self.at(now + time * math.prod(fault.factor for fault in self.active("slow", now)), partial(self.finish, sent))

    def finish(self, sent: Try, now: int) -> None:
        self.in_service -= 1
        server = self.server
        fails = server is not None and server.errors > 0 and sent.client.error.uniform() <= float(server.errors)
        self.serve(sent, ERROR if fails else SUCCESS, now)
        while self.queue:
            assert server
            since, other = self.queue.pop(-1 if server.order == "lifo" else 0)
            is_stale = server.drop == "stale" and not other.awaited
            if is_stale or (server.drop == "wait" and now - since > server.drop_limit):
                self.reply(other, SHED, 0, now)
            else:
                self.begin_service(other, now)
                break

    def serve(self, sent: Try, result: int, now: int) -> None:
        sent.served = now
        if result == SUCCESS and not sent.awaited:
            sent.wasted = True
        self.reply(sent, result, 0, now)

    def reply(self, sent: Try, result: int, wait: int, now: int) -> None:
        if sent.awaited:
            latency = sent.client.network.delay(sent.client.behavior.latency)
            self.at(now + latency, partial(self.receive, sent, result, wait))

    def receive(self, sent: Try, result: int, wait: int, now: int) -> None:
        if sent.awaited:
            sent.client.know(sent, result, wait, now)
        elif result == SUCCESS:
            sent.wasted = True
