"""Questions that interviewers ask, each with an answer and a command that shows it."""

from __future__ import annotations

from typing import NamedTuple


class Question(NamedTuple):
    """A question, its worked answer, and where to see that it is so."""

    question: str
    answer: str
    command: str
    """What to type in a clone of the repository."""
    shows: str
    """What the command prints, among other things, as a regular expression: the evidence."""


QUESTIONS = (
    Question(
        "A limit is sixty a minute, kept by a fixed window. How many requests can pass within two seconds?",
        "Twice the limit: one minute's worth just before the boundary and one just after it. Each window keeps to its "
        "count, and nobody counts across the boundary. A sliding log never lets it happen, at the price of a time for "
        "each request.",
        "ratelab simulate scenarios/boundary-burst.yaml",
        r"fixed-window let 120 through within 1min",
    ),
    Question(
        "A client has been quiet for an hour. How much may it send at once by a token bucket, and is that the worst?",
        "The burst, for a full bucket saves up no more. It is not quite the worst: while the burst is spent the bucket "
        "refills, so within the window in which the rate grants one burst, up to two can pass.",
        "ratelab explain token-bucket",
        r"at most +2x burst - 1 in any 2\.5s",
    ),
    Question(
        "Token bucket and leaky bucket get the same sudden burst. Which requests does each admit, and what differs?",
        "They admit the same ones. The token bucket lets them go at once. The leaky bucket is a queue and lets them go "
        "one by one at the rate: what is behind it sees an even flow, and the clients wait.",
        "ratelab simulate scenarios/burst.yaml --algo token-bucket --algo leaky-bucket --timeline",
        r"leaky-bucket made 7 wait",
    ),
    Question(
        "What is GCRA, and why do stores like it?",
        "The token bucket as one timestamp: the time at which the next unit would come if all kept to the rate. The "
        "decisions are the same; there is one number to read, compare and write.",
        "ratelab explain --compare token-bucket gcra",
        r"a key costs +2 numbers, 16 bytes: .*1 number, 8 bytes",
    ),
    Question(
        "What does it cost to be exact?",
        "Memory: a sliding log keeps the time of every request that still counts, so a key grows with the burst. The "
        "sliding counter keeps three numbers and estimates; the buckets keep two and count something else.",
        "ratelab algorithms --rate 100/min --burst 100",
        r"sliding-log .* 824 ",
    ),
    Question(
        "A sliding counter is only an estimate. In which direction is it wrong, and on which traffic?",
        "In both. It takes the requests of the previous window as spread evenly over it. Those that came early in it "
        "count for too long, so it denies what is due; those that came late are let go too soon, so it admits too "
        "much. An even flow it misjudges by a few per cent, which decides nothing at half the limit and many requests "
        "near it. Bursts it can misjudge at any rate: of clients that never exceed the limit it limits every one.",
        "ratelab simulate --accuracy scenarios/sliding-counter-claim/half-the-limit.yaml "
        "scenarios/sliding-counter-claim/near-the-limit.yaml scenarios/sliding-counter-claim/bursts.yaml",
        r"by 4.2 % .* with none of 10,116 .* with 1,531 of 18,151 .* limit: 0; others taken to be: 10",
    ),
    Question(
        "Everyone has a limit of their own. What protects the service when all come at once?",
        "Not these limits: each client keeps to its own and nobody is denied. Of the algorithms only the leaky bucket "
        "spreads the requests out. The service needs a limit on the whole too, or a bound on what it works on at once.",
        "ratelab simulate scenarios/thundering-herd.yaml",
        r"All 2,400 requests were admitted",
    ),
    Question(
        "A limit of thirty a minute suits the day's average. Who notices it?",
        "Whoever comes at the peak. A limit is met by the busiest minutes and not by the average, so it is chosen from "
        "a real log's distribution, and first run in the shadow, where it counts and denies nobody.",
        "ratelab simulate scenarios/diurnal.yaml",
        r"Of 43,200 requests, sliding-counter denied 12,187",
    ),
    Question(
        "The service goes from one process to four workers. What becomes of a limit kept in memory?",
        "Each worker grants all of it, so clients get four times the quota, or a random part of that, as connections "
        "fall. The state has to be shared, in a store that decides in one atomic step; or a client must always be sent "
        "to the same worker.",
        "ratelab serve --workers 4",
        r"4 workers would grant each client 4 times 2/s, burst 5",
    ),
    Question(
        "A server's clock is set back by an hour. Who is locked out, and what is granted twice?",
        "With times compared naively, everybody is locked out until the clock has caught up. Take the later of the "
        "clock and the time last seen; a monotonic clock in one process, and the store's own clock where it is shared.",
        'python -c "from ratelab import *; clock = ManualClock(7200 * 10**9); '
        "limiter = MemoryLimiter(create('token-bucket', '2/s', 5), clock); limiter.hit('alice', 5); "
        "clock.advance(-3600 * 10**9); print('an hour back:', limiter.hit('alice').retry_after, 's to wait')\"",
        r"an hour back: 0\.5 s to wait",
    ),
)
