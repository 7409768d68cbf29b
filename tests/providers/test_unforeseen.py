"""What a provider's code raises unforeseen, told without a secret."""

from wizard_actors.config import ModelConfig
from wizard_actors.providers.unforeseen import Unforeseen, bug

TOKEN = "ya29.canary-0123456789"


def test_a_token_is_told_neither_with_nor_without_its_scheme() -> None:
    """A library that quotes what it could not send quotes the token alone; then the cause is not shown either."""
    config = ModelConfig(name="m", provider="openai", headers={"Authorization": f"Bearer {TOKEN}"})
    error = ValueError(f"cannot use {TOKEN}")

    found = bug(error, config)

    assert "ValueError: cannot use ***" in str(found)
    assert TOKEN not in f"{found} {found!r}"
    assert found.__cause__ is None
    assert Unforeseen.of(ValueError("oops"), config).cause is not None
