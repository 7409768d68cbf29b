"""`wizard serve --http` in front of the upstream, one process as always: no keys, a second model to fall back to, a
limit and a circuit for each. It asks the upstream for whole answers, as the proxy beside it does, and not, as it would
by default, for streams.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from _harness import Bench, main
from _load import free_port, load, served

CONFIG = """
[[models]]
name = "first"
provider = "openai"
base_url = "{upstream}/v1"
upstream = "unary"
rate_limit = {{ requests_per_minute = 60_000_000 }}

[[models]]
name = "second"
provider = "openai"
base_url = "{upstream}/v1"
upstream = "unary"
rate_limit = {{ requests_per_minute = 60_000_000 }}

[fallback]
chain = ["first", "second"]

[server]
http = "127.0.0.1:{port}"

[sessions]
storage = "memory:"

[logging]
level = "ERROR"
"""


def endpoint(bench: Bench) -> None:
    """Load the server."""
    port = free_port()
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("WIZARD_")}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "wizard.toml")
        file.write_text(CONFIG.format(upstream=bench.upstream, port=port), encoding="utf-8")
        command = [sys.executable, "-m", "wizard_actors", "serve", "--config", str(file)]
        with served(command, port, "/health/live", inherited) as bench.server:
            load(bench, port, "wizard")


if __name__ == "__main__":
    main({"endpoint": endpoint}, "wizard-actors", "starlette")
