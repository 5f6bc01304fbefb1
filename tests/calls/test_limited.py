"""`limited`: limits for the calls of functions and methods, synchronous and asynchronous."""

from __future__ import annotations

import functools
import inspect
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from waiting_runs import run

from ratelab import Decision, InputError, ManualClock, MemoryLimiter, Policy, RateLimitExceeded, limited
from ratelab.limiter import Costs, Keys
from ratelab.stores.blocking_resilient import BlockingResilientLimiter
from ratelab.stores.resilient import ResilientLimiter
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter

S = 10**9
NOWHERE = "valkey://127.0.0.1:1"


def create(rate: str = "1/s", burst: int = 2, algorithm: str = "token-bucket") -> tuple[MemoryLimiter, ManualClock]:
    clock = ManualClock()
    return MemoryLimiter(Policy.create(algorithm, rate, burst), clock), clock


class Remote:
    """A limiter whose decisions are awaited."""

    def __init__(self, local: MemoryLimiter) -> None:
        self.policies, self.policy, self._local = local.policies, local.policy, local

    async def hit(self, key: Keys, cost: Costs = 1) -> Decision:
        return self._local.hit(key, cost)

    async def hit_each(self, key: Keys, cost: Costs = 1) -> tuple[Decision, tuple[Decision, ...]]:
        return self._local.hit_each(key, cost)


def test_a_denied_call_raises_and_does_not_run() -> None:
    limiter, clock = create()
    ran: list[int] = []

    @limited(limiter)
    def double(number: int) -> int:
        """Return twice a number."""
        ran.append(number)
        return 2 * number

    assert [double(1), double(number=2)] == [2, 4]
    with pytest.raises(RateLimitExceeded) as raised:
        double(3)
    assert ran == [1, 2]
    assert raised.value.decision.retry_after_ns == S
    assert raised.value.key == f"{__name__}.test_a_denied_call_raises_and_does_not_run.<locals>.double"
    clock.advance(S)
    assert double(3) == 6
    assert (double.__name__, double.__doc__) == ("double", "Return twice a number.")


def test_an_asynchronous_function_stays_one() -> None:
    limiter, _ = create()

    @limited(limiter)
    async def double(number: int) -> int:
        return 2 * number

    async def main() -> None:
        assert [await double(1), await double(2)] == [2, 4]
        with pytest.raises(RateLimitExceeded):
            await double(3)

    assert inspect.iscoroutinefunction(double)
    run(main())


def test_key_cost_and_plan_may_be_functions_of_the_arguments() -> None:
    limiter = MemoryLimiter(
        Policy.create("token-bucket", "1/s", 2), ManualClock(), plans={"pro": {"token-bucket": "4/s"}}
    )
    by_name: dict[str, Any] = {"key": lambda user, *_, **__: user, "cost": lambda _, size=1: size}

    @limited(limiter, **by_name, plan=lambda user, **_: "pro" if user == "paul" else None)
    def send(user: str, size: int = 1) -> int:
        return size

    assert [send("anna"), send("anna", size=1), send("bob", size=2)] == [1, 1, 2]
    assert send("paul", size=4) == 4
    for user in ("anna", "bob", "paul"):
        with pytest.raises(RateLimitExceeded):
            send(user)


def test_a_result_that_is_no_key_is_rejected_and_nothing_is_charged() -> None:
    limiter, _ = create()
    function: Any = limited(limiter, key=lambda user: user)(abs)
    with pytest.raises(InputError, match="key must be text, got 5"):
        function(5)
    assert limiter.stats.keys == 0


class Service:
    limiter, clock = create("1/s", 1)

    def __init__(self, name: str) -> None:
        self.name = name

    @limited(limiter, key=lambda self, *_: self.name)
    def work(self, size: int) -> tuple[str, int]:
        return self.name, size

    @limited(limiter)
    async def work_later(self, size: int) -> tuple[str, int]:
        return self.name, size

    @classmethod
    @limited(limiter)
    def of_class(cls, size: int) -> tuple[str, int]:
        return cls.__name__, size

    @limited(limiter)
    @classmethod
    def of_class_outside(cls, size: int) -> tuple[str, int]:
        return cls.__name__, size

    @staticmethod
    @limited(limiter)
    def static(size: int) -> int:
        return size

    @limited(limiter)
    @staticmethod
    def static_outside(size: int) -> int:
        return size

    @property
    @limited(limiter)
    def title(self) -> str:
        return self.name


def test_methods_of_every_kind_are_limited_each_by_its_name() -> None:
    one, other = Service("one"), Service("other")
    assert [one.work(1), other.work(2)] == [("one", 1), ("other", 2)]
    assert run(one.work_later(3)) == ("one", 3)
    assert [Service.of_class(4), Service.of_class_outside(5)] == [("Service", 4), ("Service", 5)]
    assert [one.static(6), Service.static_outside(7)] == [6, 7]
    assert one.title == "one"
    denied: list[Callable[[], Any]] = [
        lambda: one.work(1),
        lambda: run(other.work_later(1)),
        lambda: one.of_class(1),
        lambda: other.of_class_outside(1),
        lambda: Service.static(1),
        lambda: one.static_outside(1),
        lambda: other.title,
    ]
    for call in denied:
        with pytest.raises(RateLimitExceeded):
            call()


def test_a_function_on_deny_gets_the_decision_and_the_arguments() -> None:
    limiter, _ = create("1/s", 1)

    def explain(decision: Decision, user: str, *, size: int) -> str:
        return f"{user} {size} {decision.retry_after:g}"

    @limited(limiter, "all", on_deny=explain)
    def send(user: str, *, size: int) -> str:
        return "sent"

    assert [send("anna", size=1), send("bob", size=2)] == ["sent", "bob 2 1"]


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_function_on_deny_of_an_asynchronous_function_may_be_either(asynchronous: bool) -> None:
    limiter, _ = create("1/s", 1)

    async def explain_later(decision: Decision, number: int) -> int:
        return -number

    @limited(limiter, on_deny=explain_later if asynchronous else lambda _, number: -number)
    async def double(number: int) -> int:
        return 2 * number

    async def main() -> list[int]:
        return [await double(1), await double(2)]

    assert run(main()) == [2, -2]


def test_an_exception_of_the_function_passes_through() -> None:
    limiter, _ = create()

    @limited(limiter, on_deny=lambda decision: None)
    def fail() -> None:
        raise RateLimitExceeded(limiter.hit("other"), "mine")

    with pytest.raises(RateLimitExceeded) as raised:
        fail()
    assert raised.value.key == "mine"


def test_an_awaited_limiter_limits_asynchronous_functions_only() -> None:
    remote = Remote(create()[0])

    @limited(remote, "all")
    async def double(number: int) -> int:
        return 2 * number

    async def main() -> None:
        assert [await double(1), await double(2)] == [2, 4]
        with pytest.raises(RateLimitExceeded):
            await double(3)

    run(main())
    with pytest.raises(InputError, match=r"Remote must be awaited, and .* is not asynchronous"):
        limited(remote)(lambda: None)


async def later() -> None:
    pass


def blocked() -> list[tuple[Any, str]]:
    valkey = ValkeyLimiter(NOWHERE, "gcra", "1/s")
    return [
        (valkey, "ValkeyLimiter would block the event loop .*: use AsyncValkeyLimiter"),
        (BlockingResilientLimiter(valkey), "BlockingResilientLimiter would block .*: use ResilientLimiter"),
    ]


def test_a_limiter_that_blocks_is_rejected_for_an_asynchronous_function() -> None:
    for limiter, message in blocked():
        with pytest.raises(InputError, match=message):
            limited(limiter)(later)


def test_limiters_in_a_store_limit_functions_of_their_kind() -> None:
    valkey, remote = ValkeyLimiter(NOWHERE, "gcra", "1/s"), AsyncValkeyLimiter(NOWHERE, "gcra", "1/s")
    for blocking in (valkey, BlockingResilientLimiter(valkey)):
        limited(blocking, on_deny="wait")(len)
    for awaited in (remote, ResilientLimiter(remote)):
        limited(awaited, on_deny="wait")(later)


def generate() -> Iterator[int]:
    yield 1


async def generate_later() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("function", [generate, generate_later, functools.partial(generate)])
def test_a_generator_is_rejected(function: Any) -> None:
    with pytest.raises(InputError, match=r"cannot decorate the generator .*generate"):
        limited(create()[0])(function)


@pytest.mark.parametrize("function", [Service, 5, None])
def test_only_functions_can_be_limited(function: Any) -> None:
    with pytest.raises(InputError, match="limited must decorate a function"):
        limited(create()[0])(function)


@pytest.mark.parametrize("limiter", [None, "1/s", later, Policy.create("gcra", "1/s")])
def test_only_a_limiter_can_limit(limiter: Any) -> None:
    with pytest.raises(InputError, match="limiter must be a limiter") as rejected:
        limited(limiter)
    assert str(rejected.value).endswith(": write @limited(limiter)") == (limiter is later)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_deny": "block"}, "on_deny must be raise, wait or a function, got 'block'"),
        ({"on_deny": None}, "on_deny must be raise, wait or a function, got None"),
        ({"timeout": 1}, "timeout must not be given with on_deny='raise'"),
        ({"on_deny": "wait", "timeout": -1}, "timeout must be a number of seconds >= 0, got -1"),
        ({"on_deny": "wait", "timeout": True}, "timeout must be a number of seconds >= 0, got True"),
        ({"key": 5}, "key must be text, got 5"),
        ({"key": {"other": "alice"}}, "unknown policy 'other' in key"),
        ({"cost": -1}, "cost must be a whole number >= 0, got -1"),
        ({"cost": "2"}, "cost must be a whole number >= 0, got '2'"),
        ({"plan": 5}, "plan must be the name of a plan or a function, got 5"),
    ],
)
def test_invalid_options_are_rejected_at_decoration(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        limited(create()[0], **options)


def test_waiting_needs_a_limiter_with_wait() -> None:
    with pytest.raises(InputError, match="Remote has no wait: use a limiter such as MemoryLimiter"):
        limited(Remote(create()[0]), on_deny="wait")


def test_partial_functions_and_callable_objects_are_limited() -> None:
    class Doubler:
        def __call__(self, number: int) -> int:
            return 2 * number

    class AsyncDoubler:
        async def __call__(self, number: int) -> int:
            return 2 * number

    limiter, _ = create("1/s", 1)
    assert limited(limiter)(functools.partial(max, 1))(2) == 2
    assert limited(limiter)(Doubler())(2) == 4
    assert run(limited(limiter)(AsyncDoubler())(2)) == 4


def test_the_exception_crosses_processes_in_one_line() -> None:
    limiter, _ = create("2/s", 1)
    limiter.hit("secret")
    error = RateLimitExceeded(limiter.hit("secret"), "secret")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (copy.decision, copy.key) == (error.decision, "secret")
    assert str(copy) == str(error) == "rate limit exceeded by policy 'token-bucket': retry after 0.5 s"
    assert str(RateLimitExceeded(limiter.hit("secret", 5), "secret")) == (
        "rate limit exceeded by policy 'token-bucket': the request costs more than its burst, so no wait is enough"
    )


def test_a_limited_function_keeps_its_type() -> None:
    @limited(create()[0])
    def double(number: int, *, name: str = "") -> int:
        return 2 * number

    typed: Callable[[int], int] = double
    assert typed(4) == 8
    with pytest.raises(TypeError):
        double("a", other=1)  # type: ignore[call-arg, arg-type]
