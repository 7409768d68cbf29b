"""The limiter as an actor: callers come, are cancelled, settle and refund at random, and nothing is lost."""

import math
from random import Random

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from wizard_actors.config import RateLimitConfig
from wizard_actors.errors import WizardError
from wizard_actors.gcra import Grant, LimiterState
from wizard_actors.rate_limit import Acquire, RateLimiter, Settle
from wizard_actors.supervisor import ChildSpec, GroupSpec, Supervisor

LIMIT, RATE, BURST = 300, 120, 3

CALLERS = st.lists(
    st.tuples(
        st.integers(0, 40).map(lambda quarters: quarters / 4),  # comes at
        st.sampled_from([0, 5, 40, 120]),  # reserves
        st.sampled_from([Settle(), Settle(tokens=0), Settle(tokens=60), Settle(sent=False), None]),  # None: is killed
        st.sampled_from([1.0, 5.0, math.inf]),  # is cancelled after
    ),
    max_size=25,
)


@given(CALLERS, st.randoms(use_true_random=False), st.random_module())
def test_nothing_is_lost_and_no_limit_exceeded_by_whoever_comes_and_goes(
    callers: list[tuple[float, int, Settle | None, float]], rng: Random, schedule: object
) -> None:
    """In the end nobody waits and nothing is outstanding; at no time was more granted than both limits allow."""
    granted: list[Grant] = []
    unsent: set[Grant] = set()

    async def caller(ref_path: Supervisor, call: tuple[float, int, Settle | None, float]) -> None:
        comes_at, tokens, settle, patience = call
        ref = ref_path.ref("limiter", LimiterState)
        await trio.sleep(comes_at)
        with trio.move_on_after(patience):
            try:
                grant = await ref.ask(Acquire(trio.current_time(), 60.0, tokens=tokens))
            except WizardError:
                return
            granted.append(grant)
            try:
                await trio.sleep(rng.choice([0.0, 0.5, 3.0]))
            finally:
                if settle is not None and not settle.sent:
                    unsent.add(grant)
                ref.give_back(grant, settle or Settle())

    async def scenario() -> None:
        limits = RateLimitConfig(requests_per_minute=RATE, burst=BURST, tokens_per_minute=LIMIT)
        spec = ChildSpec("limiter", RateLimiter.factory("limited", limits, rng=rng), mailbox=4)
        async with Supervisor(GroupSpec("app", [spec])) as tree:
            async with trio.open_nursery() as nursery:
                for call in callers:
                    nursery.start_soon(caller, tree, call)
            await trio.testing.wait_all_tasks_blocked()
            state = tree.ref("limiter", LimiterState).published
            assert state is not None
            assert state.waiting == 0
            assert tree.outstanding == {}
            assert state.refunded >= len(unsent)

    trio.run(scenario, clock=MockClock(autojump_threshold=0))
    sent = sorted((grant.at, grant.tokens) for grant in granted if grant not in unsent)
    for index, (start, _tokens) in enumerate(sent):
        for count, (at, _) in enumerate(sent[index:], 1):
            assert count <= BURST + (at - start) * RATE / 60 + 1e-6
