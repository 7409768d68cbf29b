"""Mistakes in an actor, a spec or a tree: each is refused where it is made, with a sentence that says what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

from tests.kernel_actors import Do, Echo, Garage, Lease, Mileage, Rent, Told, Vacate, clerk, quiet, tree
from wizard_actors.actor import Actor, Reply, handles, hears, takes_back
from wizard_actors.errors import ActorCrashedError, WizardError
from wizard_actors.specs import ChildSpec, GroupSpec, OnGiveUp, Restart, State, Strategy
from wizard_actors.supervisor import Supervisor

Clock = trio.testing.MockClock

loose_handles: Any = handles
loose_hears: Any = hears
loose_takes_back: Any = takes_back
loose_spec: Any = ChildSpec
loose_group: Any = GroupSpec
"""As whoever does without a type checker sees them."""


# -- handlers


def answer(self: object, message: object, reply: object, now: float) -> None:
    """Handle an ask."""


def listen(self: object, message: object, now: float) -> None:
    """Hear what is told."""


def as_generator(self: object, message: object, reply: object, now: float) -> Iterator[None]:
    """Yield where a handler returns."""
    yield


async def as_async_generator(self: object, message: object, reply: object, now: float) -> AsyncIterator[None]:
    """Yield where a handler returns, and wait too."""
    yield


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        (lambda: loose_handles(answer), r"@handles above answer names no message: write @handles\(ClassOfMessages\)"),
        (lambda: loose_hears(listen), "@hears above listen names no message"),
        (lambda: loose_takes_back(answer), "@takes_back above answer names no message"),
        (lambda: loose_handles("Echo"), "@handles takes the class of the messages, not 'Echo'"),
        (lambda: loose_handles(Told), r"@handles\(Told\): Told is no Ask; what is told takes @hears"),
        (lambda: loose_takes_back(Echo), r"@takes_back\(Echo\): Echo is neither a Return nor a Notice"),
        (lambda: loose_hears(Echo), r"@hears\(Echo\): Echo is no told message; its handler takes @handles"),
        (lambda: loose_hears(Vacate), r"@hears\(Vacate\): Vacate is no told message; its handler takes @takes_back"),
        (lambda: loose_hears(Mileage), r"@hears\(Mileage\): .* takes @takes_back"),
    ],
)
def test_a_decorator_of_no_message_or_a_wrong_one_is_refused(mark: Callable[[], object], said: str) -> None:
    """The sentence names the decorator, the class, and the right one."""
    with pytest.raises(TypeError, match=said):
        mark()


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        (lambda: loose_handles(Echo)(listen), r"listen .* handler of Echo: it takes \(self, message, reply, now\)"),
        (lambda: loose_hears(Told)(answer), r"answer .* handler of Told: it takes \(self, message, now\)"),
        (lambda: loose_takes_back(Vacate)(listen), r"handler of Vacate: it takes \(self, grant, message, now\)"),
        (lambda: loose_handles(Echo)(as_generator), "as_generator is a generator: .* take out the `yield`"),
        (lambda: loose_handles(Echo)(as_async_generator), "as_async_generator is async: a handler never waits"),
    ],
)
def test_a_method_that_cannot_be_called_as_a_handler_is_refused(mark: Callable[[], object], said: str) -> None:
    """The sentence names the method and the parameters, before any message comes."""
    with pytest.raises(TypeError, match=said):
        mark()


def test_a_handler_may_name_its_parameters_as_it_likes() -> None:
    """Also the rest of them, and further ones that have defaults."""

    class Loose(Actor):
        @loose_handles(Echo)  # type: ignore[untyped-decorator]  # on purpose
        def one(self, *rest: object) -> None:
            """Take everything."""

        @loose_hears(Told)  # type: ignore[untyped-decorator]  # on purpose
        def two(self, what: Told, when: float, more: int = 0) -> None:
            """Take one more."""

    assert isinstance(Loose(), Actor)


def test_two_handlers_for_one_message_in_one_class_are_refused() -> None:
    """The sentence names the class and both methods: the last one would have won in silence."""
    with pytest.raises(TypeError, match="Twice has two handlers for Echo, `first` and `second`: keep one"):

        class Twice(Actor):
            @handles(Echo)
            def first(self, message: Echo, reply: Reply[str], now: float) -> None:
                """Answer."""

            @handles(Echo)
            def second(self, message: Echo, reply: Reply[str], now: float) -> None:
                """Answer."""


def test_one_method_for_two_messages_is_refused() -> None:
    """It would have handled only one of them."""
    with pytest.raises(TypeError, match="both handles Told and int: each class of messages has a method of its own"):

        class Both(Actor):
            @loose_hears(int)  # type: ignore[untyped-decorator]  # on purpose
            @hears(Told)
            def both(self, message: object, now: float) -> None:
                """Hear."""


async def test_a_subclass_handles_a_message_of_its_base_in_another_method(autojump_clock: Clock) -> None:
    """That is no second handler: the subclass's counts."""

    class Base(Actor):
        @handles(Echo)
        def base(self, message: Echo, reply: Reply[str], now: float) -> None:
            reply.send("base")

    class Derived(Base):
        @handles(Echo)
        def derived(self, message: Echo, reply: Reply[str], now: float) -> None:
            reply.send("derived")

    async with tree(ChildSpec("a", lambda _ledger, _carry: Derived())) as supervisor:
        assert await supervisor.ref("a", object).ask(Echo()) == "derived"


class Returning(Garage):
    """Returns what it should send."""

    @loose_handles(Echo)  # type: ignore[untyped-decorator]  # on purpose
    def echo(self, message: Echo, reply: Reply[str], now: float) -> str:
        return message.text

    @loose_hears(Told)  # type: ignore[untyped-decorator]  # on purpose
    def hear(self, message: Told, now: float) -> str:
        return message.text

    @loose_takes_back(Vacate)  # type: ignore[untyped-decorator]  # on purpose
    def leave(self, grant: Lease, message: Vacate, now: float) -> str:
        return message.note


async def test_a_handler_that_returns_its_answer_crashes_and_says_so(autojump_clock: Clock) -> None:
    """Its caller would wait for ever: the error names the handler, and how an answer is sent."""
    async with tree(ChildSpec("a", lambda ledger, _carry: Returning(ledger))) as supervisor:
        with pytest.raises(ActorCrashedError) as caught:
            await supervisor.ref("a", object).ask(Echo())

    said = "Returning.echo returned an object of type str: a handler returns nothing; it answers by reply.send"
    assert str(caught.value.__cause__) == said
    assert isinstance(caught.value.__cause__, TypeError)


async def test_no_handler_of_any_lane_returns_anything(autojump_clock: Clock) -> None:
    """The same for what is told and what comes back."""
    async with tree(ChildSpec("a", lambda ledger, _carry: Returning(ledger))) as supervisor:
        ref = supervisor.ref("a", object)
        lease = await ref.ask(Rent())
        ref.tell(Told("x"))
        await quiet()
        assert "Returning.hear returned an object of type str" in str(ref.failure)
        ref.give_back(lease, Vacate())
        await quiet()
        assert "Returning.leave returned an object of type str" in str(ref.failure)


@pytest.mark.parametrize("error", ["no room", WizardError], ids=["a text", "a class"])
async def test_a_failure_that_is_no_error_is_refused(error: object, autojump_clock: Clock) -> None:
    """The sentence names the actor and what `fail` takes; nothing of the text is repeated."""

    class Blunt(Actor):
        @handles(Do)
        def do(self, message: Do, reply: Reply[object], now: float) -> None:
            reply.fail(message.action())  # type: ignore[arg-type]  # on purpose

    async with tree(ChildSpec("a", lambda _ledger, _carry: Blunt())) as supervisor:
        with pytest.raises(ActorCrashedError) as caught:
            await supervisor.ref("a", object).ask(Do(lambda: error))

    said = str(caught.value.__cause__)
    assert isinstance(caught.value.__cause__, TypeError)
    assert said.startswith("wizard/a: reply.fail takes an error to raise in the caller")
    assert "no room" not in said


# -- specs and trees


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (lambda: loose_spec("x", Garage.__new__(Garage)), TypeError, "factory of ChildSpec 'x' .* a finished Garage"),
        (lambda: loose_spec(7, clerk("x")), TypeError, "the name of a ChildSpec is a str, not 7"),
        (lambda: loose_group(None), TypeError, "the name of a GroupSpec is a str, not None"),
        (lambda: loose_group("g", ChildSpec("x", clerk("x"))), TypeError, "are a list of .*, not one ChildSpec"),
        (lambda: loose_group("g", [clerk("x")]), TypeError, "a child of GroupSpec 'g' is a ChildSpec or a GroupSpec"),
        (lambda: loose_group("g", strategy="all"), ValueError, r"strategy is one of 'one_for_one', .*, not 'all'"),
        (lambda: loose_group("g", on_give_up=1), ValueError, r"on_give_up is one of 'down', 'escalate' .*, not 1"),
        (lambda: loose_spec("x", clerk("x"), "never"), ValueError, r"restart is one of 'permanent', .*, not 'never'"),
    ],
)
def test_a_spec_that_cannot_be_run_is_refused_where_it_is_made(
    make: Callable[[], object], kind: type[Exception], said: str
) -> None:
    """The sentence names the spec, what is wrong with it, and what it takes."""
    with pytest.raises(kind, match=said):
        make()


async def test_a_choice_may_be_given_by_its_value(autojump_clock: Clock) -> None:
    """A text is the choice that it names, and works as such."""
    children = [ChildSpec(name, clerk(name), restart="transient") for name in ("a", "b")]
    spec = GroupSpec("g", children, strategy="one_for_all", on_give_up="escalate")
    assert spec == GroupSpec("g", children, strategy=Strategy.ONE_FOR_ALL, on_give_up=OnGiveUp.ESCALATE)
    assert children[0].restart is Restart.TRANSIENT

    async with tree(spec) as supervisor:
        supervisor.kill("g/a", ValueError("planted"))
        await quiet()
        assert [child.restarts for child in supervisor.tree().children[0].children] == [1, 1]


def test_children_may_be_any_sequence() -> None:
    """A spec keeps what it was given at that time."""
    children: list[ChildSpec | GroupSpec] = [GroupSpec("a")]
    spec = GroupSpec("g", children)
    children.append(GroupSpec("b"))
    assert spec == GroupSpec("g", (GroupSpec("a"),))


@pytest.mark.parametrize("spec", [ChildSpec("x", clerk("x")), clerk("x")], ids=["a child", "a factory"])
def test_a_supervisor_of_no_group_is_refused(spec: GroupSpec) -> None:
    """The sentence shows how a single actor is run."""
    with pytest.raises(TypeError, match=r'Supervisor\(GroupSpec\("app", \[ChildSpec\("name", factory\)\]\)\)'):
        Supervisor(spec)


async def test_what_is_no_spec_is_not_added(autojump_clock: Clock) -> None:
    """Nothing is planted, and the tree goes on."""
    loose: Any = clerk("x")
    async with tree() as supervisor:
        with pytest.raises(TypeError, match="what is added is a ChildSpec or a GroupSpec, not a function"):
            await supervisor.add(loose)
        assert supervisor.tree().children == ()
        assert supervisor.tree().state is State.RUNNING
