"""The store against a plain list, at any instants."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from wizard_actors.lru import ENTRY_OVERHEAD, Found, TtlLru

KEYS = st.sampled_from([bytes([number]) for number in range(8)])
ROOM = 5 * (ENTRY_OVERHEAD + 50)
TTL, STALE_FOR = 10.0, 4.0


class Store(RuleBasedStateMachine):
    """Put, get, remove and expire in any order, at a clock that goes on and back; a list says what has to be there."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.count = 0
        self.store: TtlLru[int] = TtlLru(max_entries=4, max_bytes=ROOM, ttl=TTL, stale_for=STALE_FOR)
        self.model: list[tuple[bytes, int, int, float]] = []  # key, value, size, stored at; the last used one last

    @rule(step=st.sampled_from([0.0, 1.0, 5.0, 12.0, -3.0]))
    def wait(self, step: float) -> None:
        self.now += step

    @rule(key=KEYS, size=st.integers(0, ENTRY_OVERHEAD * 6))
    def put(self, key: bytes, size: int) -> None:
        self.count += 1
        fits = self.store.put(key, self.count, size, self.now)
        assert fits is (size + ENTRY_OVERHEAD <= ROOM)
        self.model = [entry for entry in self.model if entry[0] != key]
        if not fits:
            return
        self.forget_what_is_gone()
        self.model.append((key, self.count, size, self.now))
        while len(self.model) > 4 or sum(entry[2] + ENTRY_OVERHEAD for entry in self.model) > ROOM:
            self.model.pop(0)

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        found = self.store.get(key, self.now)
        entry = next((entry for entry in self.model if entry[0] == key), None)
        if entry is None or self.now >= entry[3] + TTL + STALE_FOR:
            assert found is None
            self.model = [each for each in self.model if each is not entry]
        else:
            assert found == Found(entry[1], fresh=self.now < entry[3] + TTL)
            self.model.remove(entry)
            self.model.append(entry)

    @rule(key=KEYS)
    def remove(self, key: bytes) -> None:
        assert self.store.remove(key) is any(entry[0] == key for entry in self.model)
        self.model = [entry for entry in self.model if entry[0] != key]

    @rule()
    def expire(self) -> None:
        self.store.expire(self.now)
        assert self.store.next_expiry() > self.now
        self.forget_what_is_gone()

    def forget_what_is_gone(self) -> None:
        """Entries go by age: one that a clock gone back made younger than those after it keeps them for longer."""
        for entry in sorted(self.model, key=lambda entry: entry[1]):
            if self.now < entry[3] + TTL + STALE_FOR:
                return
            self.model.remove(entry)

    @invariant()
    def agrees(self) -> None:
        assert list(self.store) == [entry[0] for entry in self.model]
        assert len(self.store) == len(self.model) <= 4
        assert self.store.bytes == sum(entry[2] + ENTRY_OVERHEAD for entry in self.model) <= ROOM
        assert all(self.store.peek(key) == value for key, value, _, _ in self.model)


TestStore = Store.TestCase
TestStore.settings = settings(stateful_step_count=40, max_examples=2 * settings().max_examples)
