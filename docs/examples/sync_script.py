"""A plain program: one call, a stream, a batch, calls from threads; Ctrl-C stops whatever is under way.

    python docs/examples/sync_script.py

Its models are simulated, and the first one fails; WIZARD_CONFIG=wizard.toml names real ones.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

from wizard_actors import BlockingClient, Prompt, WizardConfig, WizardError

SIMULATED = WizardConfig.from_toml("""
[[models]]
name = "first"
provider = "simulated"
retry = { max_attempts = 1 }
simulated = { script = [{ fault = "error" }, { fault = "ok" }, { fault = "content_filter" }] }

[[models]]
name = "second"
provider = "simulated"
""")


def one_call(client: BlockingClient) -> None:
    """Ask, and say who answered after which attempts."""
    response = client.generate(Prompt("Why actors?", system="Be brief."), deadline=60)
    tried = [f"{attempt.model}: {attempt.error.code if attempt.error else 'ok'}" for attempt in response.attempts]
    print(f"one call: {response.text} ({', '.join(tried)})")


def a_stream(client: BlockingClient) -> None:
    """Print an answer as it comes. Leaving the block early would stop the model."""
    print("a stream: ", end="")
    with client.stream("Tell a story.") as stream:
        for text in stream.text():
            print(text, end="", flush=True)
    print(f" ({stream.response.model})")


def a_batch(client: BlockingClient) -> None:
    """Ask many, a few at once. A prompt that fails is an outcome in its place, and no reason to stop."""
    outcomes = client.generate_batch(
        [f"Translate number {number}." for number in range(4)],
        max_concurrency=2,
        on_progress=lambda done, total: print(f"a batch: {done}/{total}"),  # called in this thread
    )
    failed = [f"{number}: {each.code}" for number, each in enumerate(outcomes) if isinstance(each, WizardError)]
    print(f"a batch: {len(outcomes) - len(failed)} answered, failed: {', '.join(failed) or 'none'}")


def from_threads(client: BlockingClient) -> None:
    """Ask from several threads: all share the one client, and with it limits, circuits and connections."""
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(client.generate, (f"Question {number}?" for number in range(8))))
    print(f"from threads: {len(answers)} answered")


def main() -> int:
    """Return the program's exit status."""
    try:
        with BlockingClient.open(os.environ.get("WIZARD_CONFIG") or SIMULATED) as client:
            one_call(client)
            a_stream(client)
            a_batch(client)
            from_threads(client)
    except WizardError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # The call that was waited for has been cancelled, and the client is closed: nothing is left to clean up.
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
