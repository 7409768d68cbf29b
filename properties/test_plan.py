"""Plans for any route, and bars under any order of reports and probes."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from wizard_actors.errors import AuthError, NetworkError, TokenLimitError, UnsupportedError, WizardError
from wizard_actors.plan import BARRED_FOR, Bar, Bars, ModelFacts, Needs, Probe, Skip, Why, plan

FACTS = st.builds(
    ModelFacts,
    enabled=st.sampled_from([True, True, True, False]),
    down=st.sampled_from([False, False, False, True]),
    context_window=st.one_of(st.none(), st.integers(0, 30)),
    bar=st.one_of(st.none(), st.builds(Bar, st.integers(-10, 10).map(float), st.just("auth"), st.booleans())),
)


@given(st.lists(FACTS, min_size=1, max_size=6), st.integers(0, 30), st.integers(-10, 10).map(float))
def test_a_plan_tries_what_is_suitable_and_free_in_order(facts: list[ModelFacts], tokens: int, now: float) -> None:
    """Every model is tried or skipped, once; nothing unsuitable is ever tried; an error only where all are."""
    by_name = dict(zip("abcdef", facts, strict=False))
    fits = [
        name
        for name, model in by_name.items()
        if model.enabled and (model.context_window is None or tokens <= model.context_window)
    ]
    free = [
        name
        for name in fits
        if not by_name[name].down and ((bar := by_name[name].bar) is None or (now >= bar.until and not bar.probing))
    ]
    try:
        made = plan(tuple(by_name), by_name, Needs(tokens), now)
    except TokenLimitError as error:
        assert not fits  # nothing suits
        largest = max(model.context_window or 0 for model in facts if model.enabled)
        assert (error.max, error.requested) == (largest, tokens)  # noqa: PT017 - a plan is as good
        return
    except UnsupportedError:
        assert not any(model.enabled for model in facts)
        return
    tried = [choice.model for choice in made.choices]
    assert sorted(tried + [skip.model for skip in made.skipped]) == sorted(by_name)
    assert [skip.model for skip in made.skipped] == sorted(skip.model for skip in made.skipped)
    if free:
        assert tried == free
        assert all((choice.why is Why.PROBE) is (by_name[choice.model].bar is not None) for choice in made.choices)
    else:
        (choice,) = made.choices
        assert choice.why is Why.LAST_RESORT
        assert choice.model in fits
        others = [skip for skip in made.skipped if skip.reason in {Skip.BARRED, Skip.PROBING}]
        bar = by_name[choice.model].bar
        assert not others or (bar is not None and all(bar.until <= (skip.until or 0.0) for skip in others))


ERRORS = st.sampled_from([None, NetworkError("reset", model="m"), AuthError("bad key", model="m")])


class Barring(RuleBasedStateMachine):
    """One model, requests that try it, and what they find out, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.bars = Bars()
        self.probes: list[Probe] = []
        self.attempts: list[float] = []
        self.changed_at = -1.0

    def bar(self) -> Bar | None:
        return self.bars.snapshot().get("m")

    @rule(step=st.integers(0, 70).map(float))
    def wait(self, step: float) -> None:
        self.now += step

    @rule()
    def send(self) -> None:
        self.attempts.append(self.now)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), error=ERRORS)
    def end(self, data: st.DataObject, error: WizardError | None) -> None:
        started = self.attempts.pop(data.draw(st.integers(0, len(self.attempts) - 1)))
        before = self.bar()
        self.bars.record("m", error, started=started, now=self.now)
        after = self.bar()
        if started < self.changed_at:
            assert after == before, "old news counted"
        elif error is not None and error.verdict.bars_model:
            assert after == Bar(self.now + BARRED_FOR, error.code)
            self.changed_at = self.now
        else:
            assert after is None
            if before is not None:
                self.changed_at = self.now

    @rule()
    def claim(self) -> None:
        before = self.bar()
        probe = self.bars.claim("m", self.now)
        free = before is None or (not before.probing and self.now >= before.until)
        assert (probe is not None) is free
        if probe is not None and before is not None:
            after = self.bar()
            assert after is not None
            assert after.probing
            self.probes.append(probe)

    @precondition(lambda self: self.probes)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        probe = self.probes.pop(data.draw(st.integers(0, len(self.probes) - 1)))
        before = self.bar()
        self.bars.abandon(probe)
        after = self.bar()
        assert (before is None) is (after is None)
        if before is not None and after is not None:
            assert after.until == before.until
            assert after.probing <= before.probing

    @invariant()
    def a_probe_that_blocks_others_is_out(self) -> None:
        bar = self.bar()
        assert bar is None or not bar.probing or self.probes

    def teardown(self) -> None:
        """Once every probe came back, somebody gets to try the model: it is never lost."""
        for probe in self.probes:
            self.bars.abandon(probe)
        assert self.bars.claim("m", self.now + BARRED_FOR) is not None


TestBarring = Barring.TestCase
TestBarring.settings = settings(stateful_step_count=40, max_examples=2 * settings().max_examples)
