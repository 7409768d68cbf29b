"""The promises of a provider about what it passes on and what it keeps to itself: a part of `ProviderContract`."""

from __future__ import annotations

import gc
import logging
import traceback
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from unittest import SkipTest

from wizard_actors.errors import UnsupportedError, WizardError
from wizard_actors.providers.base import Call
from wizard_actors.testing.provider_run import CALL, FAILURES, Act, Bench, Trial, promised, read_all
from wizard_actors.types import Message, Prompt, Role

__all__ = ["KeepingPromises"]

CALLS: Final = 5
"""One or two a provider may remember, to learn of the model; each of them it may not."""


class KeepingPromises(Trial):
    """The prompt reaches upstream and is forgotten with its call; the key reaches upstream and nobody else."""

    def test_the_prompt_reaches_upstream(self) -> None:
        """Each message of it, where the protocol has conversations."""

        async def scenario(bench: Bench) -> None:
            plain = Prompt("spell4711")
            conversation = Prompt(
                [
                    Message(Role.USER, "spell4712"),
                    Message(Role.ASSISTANT, "spell4713"),
                    Message(Role.USER, "spell4714"),
                ],
                system="spell4715",
            )
            for prompt in (plain, conversation):
                number = bench.sent
                try:
                    async with bench.provider.open(Call(prompt, "contract-3")) as answer:
                        await read_all(answer)
                except UnsupportedError as error:
                    promised(prompt is not plain, f"a plain prompt was refused: {error!r}")
                    continue
                said = bench.asked(number)
                if said is None:
                    raise SkipTest("upstream cannot tell what it was asked")
                missing = [each.text for each in prompt.conversation if each.text not in said]
                promised(not missing, f"of the prompt's messages upstream did not get {', '.join(missing)}: send them")

        self.play(scenario, Act.ANSWERS, Act.ANSWERS)

    def test_nothing_of_a_call_is_kept(self) -> None:
        """Once it is over: whoever keeps its prompt, or its answer, grows with every call."""

        async def scenario(bench: Bench) -> None:
            kept = [await _ask(bench, number) for number in range(CALLS)]
            gc.collect()
            held = sum(any(seen() is not None for seen in each) for each in kept)
            promised(
                held <= CALLS // 2,
                f"of {CALLS} calls {held} are still held after their end: keep no Call and no Prompt in the "
                "provider, nor an answer that has one",
            )

        self.play(scenario, *[Act.ANSWERS] * CALLS)

    def test_the_key_is_shown_nowhere(self) -> None:
        """Not by the provider, its answers, its errors, causes included, and the log, though upstream repeats it."""
        if not self.key:
            raise SkipTest("`key` is empty: the provider has none")

        async def scenario(bench: Bench) -> None:
            shown = [repr(bench.provider), str(bench.provider), repr(bench.provider.open)]
            with _logged() as logged:
                try:
                    async with bench.provider.open(CALL) as answer:
                        shown += [repr(answer), str(answer.upstream_id), str(answer.upstream_model)]
                        await read_all(answer)
                except WizardError as error:
                    shown += [repr(error), str(error.to_dict()), "".join(traceback.format_exception(error))]
            promised(
                not any(self.key in text for text in shown),
                "the key is shown: keep it a Secret, reveal it for the wire alone, and mask it in upstream's texts",
            )
            promised(
                not any(self.key in line for line in logged),
                "the key is logged: log none, and send it in a header, for HTTP clients log the addresses they call",
            )

        self.play_each(scenario, (Act.ANSWERS, *FAILURES))


async def _ask(bench: Bench, number: int) -> tuple[weakref.ref[object], ...]:
    """Ask once, and return what tells whether anything of it is still there."""
    call = Call(Prompt(f"Why {number}?"), f"contract-4-{number}")
    async with bench.provider.open(call) as answer:
        await read_all(answer)
    return weakref.ref(call), weakref.ref(call.prompt)


@contextmanager
def _logged() -> Iterator[list[str]]:
    """Collect everything that is logged, by whomever, at whichever level."""
    lines: list[str] = []
    handler, root = _Collector(lines), logging.getLogger()
    level, disabled = root.level, logging.root.manager.disable
    root.addHandler(handler)
    root.setLevel(1)
    logging.disable(logging.NOTSET)
    try:
        yield lines
    finally:
        logging.disable(disabled)
        root.setLevel(level)
        root.removeHandler(handler)


class _Collector(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(f"{self.format(record)} {vars(record)}")
