"""The promises of a provider about what goes wrong: a part of `ProviderContract`."""

from __future__ import annotations

from unittest import SkipTest

from wizard_actors.errors import (
    AuthError,
    NetworkError,
    ParseError,
    ProviderError,
    ProviderTimeoutError,
    RateLimitError,
    TokenLimitError,
    UnsupportedError,
    WizardError,
)
from wizard_actors.providers.base import Call
from wizard_actors.testing.provider_run import (
    CALL,
    FAILURES,
    REFUSALS,
    Act,
    Bench,
    Trial,
    finished,
    outcome,
    promised,
    read_all,
)
from wizard_actors.verdict import Outcome

__all__ = ["FailurePromises"]


class FailurePromises(Trial):
    """Every failure is an error of ours, of the right kind, raised where it belongs."""

    def test_a_refusal_is_raised_by_read(self) -> None:
        """Entering succeeds whatever the status, so that the head's limits are known before the error."""

        async def scenario(bench: Bench) -> None:
            entered, error = False, None
            try:
                async with bench.provider.open(CALL) as answer:
                    entered = True
                    await read_all(answer)
            except WizardError as raised:
                error = raised
            promised(entered, f"open raised {error!r}: a head is here, so let read() raise what it says")
            promised(error is not None, "a refusal came out as an answer: look at the status")

        self.play_each(scenario, REFUSALS)

    def test_a_refused_key_is_an_auth_error(self) -> None:
        """So that the model is skipped for a while, and its breaker learns nothing."""
        self.expect(Act.REFUSES_KEY, AuthError)

    def test_a_reached_limit_is_a_rate_limit_error(self) -> None:
        """So that the limiter pauses, for as long as upstream asks."""
        error = self.expect(Act.LIMITED, RateLimitError)
        said = getattr(error, "retry_after", None)
        promised(
            self.retry_after in {None, said}, f"retry_after is {said}, upstream asked for {self.retry_after} seconds"
        )

    def test_a_failure_of_upstream_is_one_for_the_breaker(self) -> None:
        """A `ProviderError` or `OverloadedError`: tried again, and counted."""
        error = self.expect(Act.FAILS, ProviderError)
        learned = error.verdict.breaker
        promised(learned is Outcome.FAILURE, f"{error!r} counts as {learned.name} for the breaker, not as a failure")

    def test_garbage_is_a_parse_error(self) -> None:
        """What cannot be understood is upstream's failure, not a bug of this program."""
        self.expect(Act.GARBAGE, ParseError)

    def test_no_connection_is_an_error_of_open(self) -> None:
        """`NetworkError`, or `ProviderTimeoutError` in the phase "connect"."""

        async def scenario(bench: Bench) -> None:
            entered, error = False, None
            try:
                async with bench.provider.open(CALL):
                    entered = True
            except (NetworkError, ProviderTimeoutError) as raised:
                error = raised
            promised(not entered, "open was entered without a head")
            late = isinstance(error, ProviderTimeoutError) and error.phase != "connect"
            promised(not late, f"no connection is no timeout of the phase {getattr(error, 'phase', None)!r}")

        self.play(scenario, Act.UNREACHABLE)

    def test_whatever_goes_wrong_is_one_of_our_errors(self) -> None:
        """Never a bare KeyError, ValueError or an error of the HTTP library: those are bugs to a client."""

        async def scenario(bench: Bench) -> None:
            try:
                events, error = await outcome(bench)
            except Exception as raised:
                raise AssertionError(
                    f"{raised!r} came out: turn what goes wrong into a ProviderError, chained from it"
                ) from raised
            promised(error is not None or finished(events) == 0, "an answer that failed came out as complete")
            known = error is None or isinstance(error, (ProviderError, TokenLimitError))
            promised(known, f"open and read raise a ProviderError or TokenLimitError, not {error!r}")

        self.play_each(scenario, FAILURES)

    def test_what_it_cannot_do_is_refused_before_anything_is_sent(self) -> None:
        """An `UnsupportedError` on entry: the prompt goes to the next model, and costs nothing here."""
        if not self.unsupported:
            raise SkipTest("`unsupported` names no prompt that the provider cannot ask")

        async def scenario(bench: Bench) -> None:
            for number, prompt in enumerate(self.unsupported):
                refused = None
                try:
                    async with bench.provider.open(Call(prompt, "contract-2")) as answer:
                        await answer.read()
                except UnsupportedError as error:
                    refused = error
                promised(refused is not None, f"unsupported[{number}] raised no UnsupportedError on entry")
                promised(bench.sent == 0, f"unsupported[{number}] was refused too late: something was sent")

        self.play(scenario, Act.ANSWERS)
