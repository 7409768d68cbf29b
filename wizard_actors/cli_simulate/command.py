"""The command and its flags. It is no coroutine: a simulation is a Trio run of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import CycloptsError, Parameter

from wizard_actors.cli_output import Errors, Output
from wizard_actors.cli_signals import Signals
from wizard_actors.cli_usage import whole

__all__ = ["simulate"]


def simulate(  # noqa: PLR0913 - a parameter is a flag
    scenario: Annotated[
        str | None,
        Parameter(
            allow_leading_hyphen=True,
            help="A TOML file, - for standard input, or a shipped scenario's name. Default: --list.",
        ),
    ] = None,
    /,
    *,
    signals: Annotated[Signals, Parameter(parse=False)],
    list_: Annotated[bool, Parameter(name="--list", help="List the shipped scenarios.")] = False,
    show: Annotated[bool, Parameter(help="Print the scenario's TOML, to begin another one with.")] = False,
    config: Annotated[
        str | None, Parameter(help="Play it with this configuration in the place of its own; no key is needed.")
    ] = None,
    seed: Annotated[
        int | None, Parameter(converter=whole, help="What is left to chance. Default: the scenario's own.")
    ] = None,
    seeds: Annotated[int | None, Parameter(converter=whole, help="Play so many seeds, from --seed or 1 on.")] = None,
    svg: Annotated[str | None, Parameter(help="Draw the run in this file.")] = None,
    trace: Annotated[str | None, Parameter(help="Write every step of the run to this file, as JSON lines.")] = None,
    json: Annotated[bool, Parameter(help="Print JSON, errors too.")] = False,
    verbose: Annotated[bool, Parameter(help="Log to standard error, and show a bug's traceback.")] = False,
) -> int:
    """Play an outage with a real client on a virtual clock."""
    from wizard_actors.cli_simulate.play import (
        STANDARD_INPUT,
        Play,
        list_scenarios,
    )  # what it plays takes long to import

    output, errors = Output(sys.stdout), Errors(sys.stderr, as_json=json, verbose=verbose)
    settings = (config, seed, seeds, svg, trace)
    if scenario is None or list_:
        if scenario is not None or show or any(each is not None for each in settings):
            raise _wrong(
                "a list plays nothing: leave the rest out" if list_ else "name the scenario to play; --list lists them"
            )
        return list_scenarios(output, as_json=json)
    if scenario.startswith("-") and scenario != STANDARD_INPUT:
        raise _wrong(f"unknown option: {scenario}")
    if show and any(each is not None for each in settings):
        raise _wrong("--show plays nothing: leave the rest out")
    if not scenario or config == "":
        raise _wrong("the name of a file is empty: name one" + (", or leave --config out" if scenario else ""))
    if seeds is not None and (svg is not None or trace is not None):
        raise _wrong("--svg and --trace are of one run: leave --seeds out, and name its --seed")
    if svg is not None and trace is not None and Path(svg).absolute() == Path(trace).absolute():
        raise _wrong("--svg and --trace name one file: each needs its own")
    play = Play(
        source=scenario, config=config, output=output, errors=errors, signals=signals, as_json=json, verbose=verbose
    )
    if show:
        return play.show()
    return play.one(seed, svg=svg, trace_file=trace) if seeds is None else play.many(1 if seed is None else seed, seeds)


def _wrong(said: str) -> CycloptsError:
    return CycloptsError(msg=said, command_chain=["simulate"])
