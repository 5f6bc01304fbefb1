"""Interview questions and answers, and when and why to choose each algorithm."""

from __future__ import annotations

from typing import NamedTuple

from ratelab.algorithms.fixed_window import FixedWindow
from ratelab.algorithms.gcra import Gcra
from ratelab.algorithms.leaky_bucket import LeakyBucket
from ratelab.algorithms.sliding_counter import SlidingCounter
from ratelab.algorithms.sliding_log import SlidingLog
from ratelab.algorithms.token_bucket import TokenBucket
from ratelab.limiter import Algorithm


class Advice(NamedTuple):
    """When to choose an algorithm, and how to argue for it."""

    choose_when: str
    say_aloud: str
    """The argument in spoken sentences, as an interviewer would hear it."""


ADVICE: dict[type[Algorithm], Advice] = {
    TokenBucket: Advice(
        "clients are bursty and may save up",
        "I would choose a token bucket: a client that has been quiet may send a burst at once, and no client exceeds "
        "the rate for long. It refills lazily, so a key stores two numbers, a request costs O(1), and no timer runs. "
        "In the time that the rate needs to grant one burst, almost two bursts can pass: the full bucket, and the "
        "tokens refilled meanwhile.",
    ),
    LeakyBucket: Advice(
        "the service behind it needs an even flow, and waiting is better than a denial",
        "I would choose a leaky bucket that queues: it shapes traffic instead of only denying it, so the service "
        "behind it sees an even flow. A key stores two numbers and a request costs O(1). The price is latency, up to "
        "the time that a full queue needs to drain, and memory to hold the waiting requests.",
    ),
    FixedWindow: Advice(
        'users must be able to predict it, as in "1,000 a day"',
        "I would choose a fixed window if users must be able to predict the limit, or if a plain counter is all I "
        "have: it takes O(1) time and memory. I would mention its weakness right away: twice the limit can pass "
        "around a window boundary, half on each side. And all denied clients come back together when the next window "
        "begins.",
    ),
    SlidingLog: Advice(
        "the limit is a promise, and `burst` is small",
        "I would choose a sliding log if the limit is a promise: no window, wherever you place it, contains more than "
        "the limit. It stores the time of every admitted request, so it needs O(burst) memory where the others need "
        "O(1). I would keep it for small limits, and for tests, as the exact reference for the other algorithms.",
    ),
    SlidingCounter: Advice(
        "the log would be too large, and traffic is even",
        "I would choose a sliding counter for large limits and even traffic: a key stores three numbers instead of a "
        "time for each request, a request costs O(1), and the limit does not double at a window boundary. But it is "
        "an estimate. After a burst it denies requests that the exact limit allows, and traffic crafted against it "
        "gets almost twice the limit through.",
    ),
    Gcra: Advice(
        "you want the token bucket in one number",
        "I would describe GCRA as the token bucket stored as a single timestamp: the same decisions in O(1), with one "
        "value per key. It tracks the time owed instead of the tokens left, so there is nothing to refill. Reading "
        "and updating that value must still be one atomic step.",
    ),
}
"""Advice for the built-in algorithms; any other is explained by its docstring alone."""


class Question(NamedTuple):
    """An interview question, its answer, and a command that proves the answer."""

    question: str
    answer: str
    command: str
    """A command to run in a clone of the repository; a Python program has one statement on each line."""
    evidence: str
    """A regular expression for the relevant part of the command's output, with each run of whitespace as one blank."""


QUESTIONS = (
    Question(
        "A fixed window allows sixty requests a minute. How many can pass within one minute?",
        "Twice the limit, almost at once: one minute's worth just before a window boundary and one just after it. "
        "Each window stays within its limit, but no counter spans the boundary. A sliding log prevents this, at the "
        "price of storing a time for each request.",
        "ratelab simulate scenarios/boundary-burst.yaml --algo fixed-window --algo sliding-log",
        r"fixed-window let 120 through in a window of 1 min, above the quota of 60; sliding-log stayed within it",
    ),
    Question(
        "A client has been quiet for an hour. How much may it send at once with a token bucket, and is that the worst "
        "case?",
        "One burst, because a full bucket saves no more. That is not quite the worst case. The bucket refills while "
        "the burst is spent, so the window in which the rate grants one burst can see more than one, but never quite "
        "two. Here, seven requests pass where the quota is five.",
        "ratelab simulate scenarios/burst.yaml --algo token-bucket",
        r"token-bucket let 7 through in a window of 2\.5 s, above the quota of 5",
    ),
    Question(
        "A token bucket and a leaky bucket get the same sudden burst. Which requests does each admit, and how do they "
        "differ?",
        "Both admit the same requests, as the two rows show: x is a denial in either, ~ is an admission that waits. "
        "The token bucket lets them go at once. The leaky bucket is a queue and releases them one by one at the rate: "
        "the service behind it sees an even flow, and the clients wait.",
        "ratelab simulate scenarios/burst.yaml --algo token-bucket --algo leaky-bucket --timeline",
        r"Every algorithm denied 16 of 30 requests \(53\.3 %\); leaky-bucket delayed 7 by "
        r".*token-bucket \|.*leaky-bucket \|.*~ some delayed",
    ),
    Question(
        "What is GCRA, and why would you keep it in a store?",
        "It is the token bucket as one timestamp, the theoretical arrival time: the time at which the next request "
        "would come if all kept to the rate. The decisions are the same, and the state of a key is a single number. "
        "Let's Encrypt stores one in Redis for each limit of a client "
        "(https://github.com/letsencrypt/boulder/issues/7780). A script that also stores the last time it has seen, "
        "as ratelab's does so that the clock may step back, saves no memory.",
        "ratelab explain --compare token-bucket gcra",
        r"key state +2 numbers, 16 bytes: .*1 number, 8 bytes",
    ),
    Question(
        "What is the price of an exact limit?",
        "Memory. A sliding log stores the time of every request that still counts, so a key grows with the burst. A "
        "sliding counter stores three numbers and estimates. The buckets store one or two, but they enforce a "
        "different rule.",
        "ratelab algorithms --rate 100/min --burst 100",
        r"sliding-log .* 832 ",
    ),
    Question(
        "A sliding counter is only an estimate. In which direction is it wrong, and for which traffic?",
        "In both directions. It assumes that the requests of the previous window are spread evenly over it. If they "
        "came early, they count for too long, and it denies requests that the limit allows. If they came late, they "
        "expire too soon, and it admits too many. For even traffic the error is a few per cent, which changes no "
        "decision at half the limit but many near it. Bursts can be misjudged at any rate: in the third scenario, no "
        "client ever exceeds the limit, and every one is denied requests. Cloudflare found 0.003 % wrong decisions in "
        "its own traffic (https://blog.cloudflare.com/counting-things-a-lot-of-different-things/).",
        "ratelab simulate scenarios/sliding-counter-claim/half-the-limit.yaml "
        "scenarios/sliding-counter-claim/near-the-limit.yaml scenarios/sliding-counter-claim/bursts.yaml --accuracy",
        r"4\.17 % [a-z, ]+ none of 10,116 .* 3\.[0-9]+ % [a-z, ]+ 1,531 of 18,151 requests .* "
        r"990 of 12,600 requests \(7\.86 %\)",
    ),
    Question(
        "Every client has its own limit. What protects the service if all of them come at once?",
        "These limits do not: each client stays within its own, and no request is denied. Of the algorithms, only the "
        "leaky bucket spreads the requests out. The service also needs a limit on its total traffic, or on the number "
        "of requests that it handles at the same time.",
        "ratelab simulate scenarios/thundering-herd.yaml --algo token-bucket --algo leaky-bucket",
        r"All 2,400 requests were admitted",
    ),
    Question(
        "A limit of thirty a minute fits the average of a day. Which clients notice it?",
        "Those that come at the peak. Here, every part of the busy half of the day has denials (+), and no other part "
        "does. The busiest minutes reach a limit, not the average. So choose it from the distribution in a real log, "
        "and run it in shadow mode first, where it counts requests but does not deny any.",
        "ratelab simulate scenarios/diurnal.yaml --algo sliding-log --timeline",
        r"Of 43,200 requests, sliding-log denied 11,684 \(27 %\)\..* sliding-log \++\|+ 0 s 1 day",
    ),
    Question(
        "The service grows from one process to four workers. How does that change a limit kept in memory?",
        "Each worker grants all of it. A client gets up to four times the quota, depending on how its connections are "
        "distributed. Move the state to a shared store that decides in one atomic step, or always route a client to "
        "the same worker.",
        """python -c "
from ratelab import *
workers = [MemoryLimiter(create('token-bucket', '1/h', 100)) for _ in range(4)]
admitted = sum(workers[hit % 4].hit('alice').allowed for hit in range(1000))
print('admitted', admitted, 'where 100 are granted')
\"""",
        r"^admitted 400 where 100 are granted",
    ),
    Question(
        "A server's clock is set back by an hour. Which clients are locked out, and when is quota granted twice?",
        "If times are compared naively, every client that has spent its burst is locked out until the clock has "
        "caught up. If the clock swings back and forth, as between two servers, the time in between earns quota again "
        "at each turn. Using the later of the clock and the last time seen grants nothing extra, but still locks "
        "clients out. So accept a large step back as the new time, as ratelab does, or use a monotonic clock. A "
        "shared store decides by its own clock.",
        """python -c "
from ratelab import *
SECOND, kernel = 10**9, create('token-bucket', '2/s', 5)
clock = ManualClock(7200 * SECOND)
limiter, state = MemoryLimiter(kernel, clock), kernel.start(clock())
limiter.hit('alice', 5), kernel.step(state, clock(), 5)
clock.advance(-3600 * SECOND)
late = next(s for s in range(9999) if kernel.step(state, clock() + s * SECOND, 1)[0])
print('with the later time: locked out for', late, 's')
print('with the new time:', limiter.hit('alice').retry_after, 's to wait')
\"""",
        r"locked out for 3601 s with the new time: 0\.5 s to wait",
    ),
    Question(
        "The network of a service fails for ten seconds. It gets 80 requests a second and can serve 100, yet minutes "
        "later nearly all of them still fail. How can that be, and what prevents it?",
        "Retries. While the network fails, requests queue up; after that, the service answers requests whose callers "
        "have timed out. Each of them tries again, so 160 tries a second meet a capacity of 100, and the queue never "
        "shrinks: a metastable failure, which outlives its trigger. Without retries, or at half the load, it recovers; "
        "at once if the queue serves the latest first. Let clients back off with jitter, obey Retry-After, "
        "and pay for retries from a budget. Let the service deny early and drop requests whose callers have left.",
        "ratelab simulate scenarios/clients-that-retry/metastable-outage.yaml",
        r"After the outage, goodput was back at once \(last in first out\), after 39 s \(no retry\), after 45 s "
        r"\(half the load\), and never \(one retry\): a metastable failure",
    ),
)
