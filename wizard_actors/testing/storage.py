"""What a session storage of your own has to keep to, as tests: subclass `StorageContract`, and run it with pytest or
unittest.

    class TestVault(StorageContract):
        durable = True

        def open(self, folder: Path) -> AbstractAsyncContextManager[SessionStorage]:
            return Vault.open(folder / "vault.db")

Each test opens storages of its own. The clock is the real one, for a storage may use threads; the times of the sessions
are made up. One test needs Hypothesis, which the extra `testing` installs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import ClassVar

from wizard_actors.testing.storage_bench import StorageBench
from wizard_actors.testing.storage_listing import ListingPromises
from wizard_actors.testing.storage_opening import OpeningPromises
from wizard_actors.testing.storage_saving import SavingPromises
from wizard_actors.testing.storage_writers import WriterPromises

__all__ = ["StorageContract"]


class StorageContract(SavingPromises, OpeningPromises, ListingPromises, WriterPromises):
    """The promises of a session storage. `open` has to be filled in, `damage` where stored sessions can be spoiled.

    `durable`: set it to True where what was saved is there when the storage is opened again. `shared`: set it to True
    where the same storage may be open twice at once, as in two processes. `within` is how many seconds a test may take
    before a call counts as hanging, `examples` how many lists of calls are compared with a dict.
    """

    examples: ClassVar[int] = 50

    def test_it_does_what_a_dict_does(self) -> None:
        """Any list of saves, deletions, lists and removals has the results that a dict of sessions would have."""
        _with_hypothesis()(self, self.examples)


def _with_hypothesis() -> Callable[[StorageBench, int], None]:
    try:
        model = importlib.import_module("wizard_actors.testing.storage_model")
    except ModuleNotFoundError as error:
        if error.name != "hypothesis":
            raise
        raise ModuleNotFoundError(
            "this test compares the storage with a dict by means of Hypothesis, which is not installed: "
            "`pip install 'wizard-actors[testing]'`",
            name=error.name,
        ) from error
    check: Callable[[StorageBench, int], None] = model.check_against_a_dict
    return check
