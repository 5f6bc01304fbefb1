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
    """A question, its worked answer, and where to see that it is so."""

    question: str
    answer: str
    command: str
    """What to type in a clone of the repository; of a program, a statement a line."""
    shows: str
    """What the command prints, among other things, as a regular expression: the evidence."""


QUESTIONS = (
    Question(
        "A limit is sixty a minute, kept by a fixed window. How many requests can pass within a minute?",
        "Twice the limit, and all of it within a moment: one minute's worth just before the boundary and one just "
        "after it. Each window keeps to its count, and nobody counts across the boundary. A sliding log never lets it "
        "happen, at the price of a time for each request.",
        "ratelab simulate scenarios/boundary-burst.yaml --algo fixed-window --algo sliding-log",
        r"fixed-window let 120 through within 1min where the quota is 60; sliding-log kept to it",
    ),
    Question(
        "A client has been quiet for an hour. How much may it send at once by a token bucket, and is that the worst?",
        "The burst, for a full bucket saves up no more. It is not quite the worst: while the burst is spent the "
        "bucket refills, so the window in which the rate grants one burst can see more than one pass, but never quite "
        "two. Here it is seven where five are granted.",
        "ratelab simulate scenarios/burst.yaml --algo token-bucket",
        r"token-bucket let 7 through within 2\.5s where the quota is 5",
    ),
    Question(
        "Token bucket and leaky bucket get the same sudden burst. Which requests does each admit, and what differs?",
        "They admit the same ones, as the two rows show: x is a denial in either, ~ is an admission that waits. The "
        "token bucket lets them go at once. The leaky bucket is a queue and lets them go one by one at the rate: what "
        "is behind it sees an even flow, and the clients wait.",
        "ratelab simulate scenarios/burst.yaml --algo token-bucket --algo leaky-bucket --timeline",
        r"Every algorithm denied 16 of 30 requests; leaky-bucket made 7 wait, "
        r".*token-bucket \|.*leaky-bucket \|.*~ some delayed",
    ),
    Question(
        "What is GCRA, and why do some keep it in a store?",
        "The token bucket as one timestamp, the theoretical arrival time: when the next unit would come if all kept "
        "to the rate. The decisions are the same, and a key is one number. Let's Encrypt keeps one in Redis for each "
        "limit of a client (https://github.com/letsencrypt/boulder/issues/7780). Where a script keeps the time last "
        "seen beside it, as ratelab's does so that a clock may step back, nothing is saved.",
        "ratelab explain --compare token-bucket gcra",
        r"a key costs +2 numbers, 16 bytes: .*1 number, 8 bytes",
    ),
    Question(
        "What does it cost to be exact?",
        "Memory: a sliding log keeps the time of every request that still counts, so a key grows with the burst. The "
        "sliding counter keeps three numbers and estimates; the buckets keep two and count something else.",
        "ratelab algorithms --rate 100/min --burst 100",
        r"sliding-log .* 832 ",
    ),
    Question(
        "A sliding counter is only an estimate. In which direction is it wrong, and on which traffic?",
        "In both directions. It takes the requests of the previous window as spread evenly over it. Those that came "
        "early in it count for too long, so it denies what is due; those that came late are let go too soon, so it "
        "admits too much. An even flow it misjudges by a few per cent, which decides nothing at half the limit and "
        "many requests near it. Bursts it can misjudge at any rate: of clients that never exceed the limit it limits "
        "every one. Cloudflare found 0.003 % wrongly decided, on traffic of its own "
        "(https://blog.cloudflare.com/counting-things-a-lot-of-different-things/).",
        "ratelab simulate scenarios/sliding-counter-claim/half-the-limit.yaml "
        "scenarios/sliding-counter-claim/near-the-limit.yaml scenarios/sliding-counter-claim/bursts.yaml --accuracy",
        r"off by 4\.2 % [a-z, ]+ with none of 10,116 .* off by 3\.2 % [a-z, ]+ with 1,531 of 18,151 requests .* "
        r"with 990 of 12,600 requests \(7\.9 %\)\. Keys ever above the limit: 0; others taken to be: 10",
    ),
    Question(
        "Everyone has a limit of their own. What protects the service when all come at once?",
        "Not these limits: each client keeps to its own and nobody is denied. Of the algorithms only the leaky bucket "
        "spreads the requests out. The service needs a limit on the whole too, or a bound on what it works on at "
        "once.",
        "ratelab simulate scenarios/thundering-herd.yaml",
        r"All 2,400 requests were admitted",
    ),
    Question(
        "A limit of thirty a minute suits the day's average. Who notices it?",
        "Whoever comes at the peak: here every part of the busy half of the day sees denials (+), and no other part "
        "does. A limit is met by the busiest minutes and not by the average, so it is chosen from a real log's "
        "distribution, and first run in the shadow, where it counts and denies nobody.",
        "ratelab simulate scenarios/diurnal.yaml --algo sliding-log --timeline",
        r"Of 43,200 requests, sliding-log denied 11,684\. sliding-log \++\|+ 0s 1 day",
    ),
    Question(
        "The service goes from one process to four workers. What becomes of a limit kept in memory?",
        "Each worker grants all of it, so clients get four times the quota, or a random part of that, as connections "
        "fall. The state has to be shared, in a store that decides in one atomic step; or a client must always be "
        "sent to the same worker.",
        """python -c "
from ratelab import *
workers = [MemoryLimiter(create('token-bucket', '1/h', 100)) for _ in range(4)]
admitted = sum(workers[hit % 4].hit('alice').allowed for hit in range(1000))
print('admitted', admitted, 'where 100 are granted')
\"""",
        r"^admitted 400 where 100 are granted",
    ),
    Question(
        "A server's clock is set back by an hour. Who is locked out, and what is granted twice?",
        "With times compared naively, everybody who had spent the burst is locked out until the clock has caught up. "
        "Where the clock swings to and fro, as between two servers, the time between the two is earned again at each "
        "turn. The later of the clock and the time last seen mints nothing, but still locks out. So a large step back "
        "has to be taken as the new time, as ratelab does, or the clock has to be monotonic; a shared store decides "
        "by its own.",
        """python -c "
from ratelab import *
SECOND, kernel = 10**9, create('token-bucket', '2/s', 5)
clock = ManualClock(7200 * SECOND)
limiter, state = MemoryLimiter(kernel, clock), kernel.start(clock())
limiter.hit('alice', 5), kernel.step(state, clock(), 5)
clock.advance(-3600 * SECOND)
late = next(s for s in range(9999) if kernel.step(state, clock() + s * SECOND, 1)[0])
print('the later time alone: locked out for', late, 's')
print('and a step back taken as the time:', limiter.hit('alice').retry_after, 's to wait')
\"""",
        r"locked out for 3601 s and a step back taken as the time: 0\.5 s to wait",
    ),
)
