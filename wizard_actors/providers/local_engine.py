"""The process that holds the embedded model: `wizard_actors.providers.local` runs this file as a script.

Its whole life: read one line of settings from standard input, load the model, write one line to standard output
(`{"url": ...}`, or `{"missing": ...}` or `{"failed": ...}` with the reason), and serve until standard input ends,
which the system sees to however the parent process ends. The engine's own log goes to standard error until the model
is loaded, and nowhere after that.
"""

import json
import os
import signal
import sys
from typing import TypedDict

__all__ = ["Settings", "main"]

ERRORS_ONLY = 1
"""llama.cpp's verbosity: 1 errors, 2 warnings, 3 what it does (its default), 4 everything."""


class Settings(TypedDict):
    """What the parent sends: where to import from, and how the model is to be loaded and reached."""

    path: list[str]
    gguf: str
    alias: str
    context: int
    threads: int
    api_key: str


def main() -> None:
    """Serve one model until standard input ends."""
    # Both are for the parent to act on. A terminal's Ctrl-C and a service manager's stop reach the whole group, and the
    # parent may still want to finish the answers in flight.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # standard output carries our one line, whatever the engine prints
    settings: Settings = json.loads(sys.stdin.readline())
    sys.path[:] = settings["path"]
    server, outcome = _load(settings)
    try:
        report.write(json.dumps(outcome) + "\n")
        report.close()
        if server is not None:
            _silence()
            sys.stdin.read()
    finally:
        # Also where the parent has gone meanwhile and the report reaches nobody. An ordinary exit would destroy the
        # server, which waits for answers still being generated, and may wait for ever.
        if server is not None:
            os._exit(0)


def _silence() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _load(settings: Settings) -> tuple[object | None, dict[str, str]]:
    """Start the server, and say where it listens or why there is none."""
    try:
        import xllamacpp
    except ImportError as error:
        return None, {"missing": str(error)}
    params = xllamacpp.CommonParams()
    params.model.path = settings["gguf"]
    params.model_alias = {settings["alias"]}  # else answers and errors show the file's path
    params.n_ctx = settings["context"]
    params.n_parallel = 1
    params.cpuparams.n_threads = settings["threads"]
    params.fit_params = False  # reads the file twice, to fit it into a GPU's memory
    params.cache_ram_mib = 0  # else finished conversations are kept, in up to 8 GB
    params.cache_idle_slots = False
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # any free one
    params.api_keys = [settings["api_key"]]
    params.cors_origins = ""  # else the server invites pages of any origin in this machine's browsers
    params.cors_origins_explicit = True
    params.ui = False
    params.endpoint_slots = False
    params.verbosity = ERRORS_ONLY
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        return None, {"failed": str(error)}
    return server, {"url": server.listening_address}


if __name__ == "__main__":
    main()
