"""The verdict table, row by row."""

from __future__ import annotations

import pytest

from wizard_actors.errors import (
    ActorCrashedError,
    ActorError,
    ActorStoppedError,
    AuthError,
    CircuitOpenError,
    ConfigError,
    ConfigProblem,
    ContentFilterError,
    DeadlineExceededError,
    EnvVarError,
    FallbackError,
    InvalidPromptError,
    InvalidStateTransitionError,
    MailboxFullError,
    ModelNotFoundError,
    NetworkError,
    OverloadedError,
    ParseError,
    ProviderBugError,
    ProviderError,
    ProviderTimeoutError,
    QuotaExhaustedError,
    RateLimitError,
    RequestError,
    RetryError,
    SerializationError,
    SessionConflictError,
    SessionNotInitializedError,
    StorageError,
    StreamInterruptedError,
    SupervisorError,
    TokenLimitError,
    UnsupportedError,
    WizardError,
)
from wizard_actors.verdict import VERDICTS, Again, Next, Outcome, Row, Verdict

REFUSED = Verdict(Again.NO, Next.YES, Outcome.IGNORED)
FAILED = Verdict(Again.AFTER_DELAY, Next.YES, Outcome.FAILURE)
SILENT = Verdict(Again.IF_LAST, Next.YES, Outcome.FAILURE)
FINAL = Verdict(Again.NO, Next.NO, Outcome.IGNORED)
BARRED = Verdict(Again.NO, Next.YES, Outcome.IGNORED, bars_model=True)

TABLE: list[tuple[WizardError, Verdict]] = [
    # the caller's own doing: no other model would say anything else
    (InvalidPromptError("empty"), FINAL),
    (ContentFilterError("refused", model="m"), FINAL),
    (TokenLimitError("too long"), Verdict(Again.NO, Next.IF_LARGER, Outcome.IGNORED)),
    # this model will not, another one may
    (UnsupportedError("no tools", feature="tools"), REFUSED),
    (RequestError("a 4xx", model="m"), REFUSED),
    (ActorStoppedError("stopped", actor="a"), REFUSED),
    (ActorError("no handler", actor="a"), REFUSED),
    (ProviderBugError("a bug", model="m"), REFUSED),
    (ActorCrashedError("crashed", actor="a"), Verdict(Again.AT_ONCE, Next.YES, Outcome.IGNORED)),
    # this model cannot for a while, whoever asks
    (AuthError("bad key", model="m"), BARRED),
    (ModelNotFoundError("unknown", model="m"), BARRED),
    (QuotaExhaustedError("no credit", model="m"), BARRED),
    (RateLimitError("a 429", model="m"), Verdict(Again.REACQUIRE, Next.YES, Outcome.IGNORED)),
    # the model failed
    (ProviderError("a 5xx, 408 or 409", model="m"), FAILED),
    (OverloadedError("a 529", model="m"), FAILED),
    (NetworkError("refused", model="m"), FAILED),
    (ParseError("no JSON", model="m"), FAILED),
    (StreamInterruptedError("cut", model="m"), FAILED),
    (ProviderTimeoutError("late", model="m", phase="connect"), FAILED),
    (ProviderTimeoutError("late", model="m", phase="first_token"), SILENT),
    (ProviderTimeoutError("late", model="m", phase="stall"), SILENT),
    (ProviderTimeoutError("late", model="m", phase="total"), SILENT),
    # nothing was sent
    (CircuitOpenError("open", model="m", retry_at=1.0, retry_after=1.0), REFUSED),
    (RateLimitError("over max_wait", model="m", source="limiter"), REFUSED),
    (MailboxFullError("full", actor="a"), Verdict(Again.NO, Next.IF_SPILL, Outcome.IGNORED)),
    # nothing more to be done
    (DeadlineExceededError("late"), FINAL),
    (StorageError("disk full"), FINAL),
    (SerializationError("not JSON"), FINAL),
    (SessionConflictError("newer"), FINAL),
    (InvalidStateTransitionError("closed", from_state="a", to_state="b"), FINAL),
    (SessionNotInitializedError("not yet", from_state="a", to_state="b"), FINAL),
    (SupervisorError("gave up", actor="wizard"), FINAL),
    (RetryError("used up"), FINAL),
    (FallbackError("all failed"), FINAL),
    (ConfigError([ConfigProblem("a", "is wrong")]), FINAL),
    (EnvVarError("KEY", key="a"), FINAL),
    (WizardError("anything else"), FINAL),
]


@pytest.mark.parametrize(
    ("error", "verdict"), TABLE, ids=[f"{type(error).__name__} {error}".replace(" ", "-") for error, _ in TABLE]
)
def test_an_error_falls_under_its_row(error: WizardError, verdict: Verdict) -> None:
    """Same model again, next model, what the breaker learns: as the table says, whatever else the error carries."""
    assert error.verdict == verdict
    assert VERDICTS[error.row] == verdict


def test_every_row_of_the_table_is_used() -> None:
    """There is a verdict for each row, and an error under each."""
    assert set(VERDICTS) == set(Row)
    assert {error.row for error, _ in TABLE} == set(Row)


def test_only_what_is_the_models_fault_counts_against_it() -> None:
    """A breaker learns of failures, never of the caller's mistakes, and a failure is always worth another try."""
    counted = {row for row, verdict in VERDICTS.items() if verdict.breaker is Outcome.FAILURE}
    assert counted == {Row.FAILED, Row.SILENT}
    assert {verdict.next for row, verdict in VERDICTS.items() if row in counted} == {Next.YES}
    assert Outcome.SUCCESS not in {verdict.breaker for verdict in VERDICTS.values()}


def test_the_table_cannot_be_changed() -> None:
    """Policy is data, and the same for everybody."""
    with pytest.raises(TypeError):
        VERDICTS[Row.FINAL] = REFUSED  # type: ignore[index]  # what is tested
