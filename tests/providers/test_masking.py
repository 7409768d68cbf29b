"""What errors may not repeat, in every form in which it might come back."""

import base64

from wizard_actors.config import Secret
from wizard_actors.providers.masking import excerpt, secret_forms

TOKEN = "ya29.canary-0123456789"


def masked(text: str, key: str | None = None, **headers: str) -> str:
    """Return a text without the secrets of a model with this key and these headers."""
    named = {name.replace("_", "-"): Secret(value) for name, value in headers.items()}
    return excerpt(text, secret_forms(None if key is None else Secret(key), named))


def test_a_token_is_masked_without_its_scheme() -> None:
    """A provider repeats what it takes for the key, whatever the header is called."""
    assert masked(f"Invalid token {TOKEN}", authorization=f"Bearer {TOKEN}") == "Invalid token ***"
    assert masked(f"Invalid token {TOKEN}", x_goog=f"bearer  {TOKEN}") == "Invalid token ***"
    assert masked(f"Invalid token {TOKEN}", key=f"Bearer {TOKEN}") == "Invalid token ***"
    basic = base64.b64encode(b"user:canary-0123?>").decode()
    assert masked(f"no such user: {basic}", proxy_authorization=f"Basic {basic}") == "no such user: ***"
    assert masked("session canary-1 ended", cookie="sid=canary-1; theme=dark") == "session *** ended"


def test_a_header_of_words_masks_only_the_whole() -> None:
    """The name of a program is no key: its words are other people's words too."""
    assert masked("the model is not my model", x_title="my model") == "the model is not ***"


def test_quoted_secrets_are_masked() -> None:
    """As Python shows them, and as they stand in an address."""
    odd = "sk-it's+a/key"
    assert masked("x sk-it's+a/key y", key=odd) == "x *** y"
    assert masked("x sk-it%27s%2Ba%2Fkey y", key=odd) == "x *** y"


def test_the_longest_secret_is_masked_first() -> None:
    """One may begin with another: nothing of it is left over."""
    for first, second in (("sk-canary", "sk-canary-and-more"), ("sk-canary-and-more", "sk-canary")):
        assert masked("it was sk-canary-and-more", key=first, x_api_key=second) == "it was ***"


def test_only_the_beginning_of_a_text_is_looked_at() -> None:
    """Whoever sends megabytes of nothing is quoted with nothing."""
    assert excerpt(" " * 3199 + "x") == "x"
    assert excerpt(" " * 3200 + "x") == ""
