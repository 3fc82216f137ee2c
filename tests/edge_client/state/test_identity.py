"""The identity on disk while credentials are renewed: whatever is killed or restored, the server knows one of them."""

from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from edge_client.state.folder import Identity

RENEWAL = ("draw", "tell", "take", "use")
FAULTS = ("killed", "disk lost the last write", "server backed up", "server restored")


class World:
    """A board's disk and a server's rows, moved one step at a time; each step may be the last before a power cut."""

    def __init__(self) -> None:
        self.numbers = count(1)
        self.disk = self.disk_before = Identity(server="s", install_id="i", device="d", credential="c0")
        self.current, self.next = "c0", ""
        self.backup = (self.current, self.next)

    @property
    def in_use(self) -> str:
        """The credential that a client which starts now ends up with: the first that the server knows."""
        return next(known for known in self.disk.credentials if known in (self.current, self.next))

    def write(self, identity: Identity) -> None:
        self.disk_before, self.disk = self.disk, identity

    def step(self, name: str) -> None:
        if name == "draw":
            self.step("use")  # the answer that asks for a renewal is one to the credential in use
            self.write(self.disk.with_next(f"c{next(self.numbers)}", self.in_use))
        elif name == "tell" and self.disk.next_credential not in ("", self.current):
            if self.in_use == self.disk.credential:  # as it is after "draw"
                self.next = self.disk.next_credential
        elif name == "take" and self.disk.next_credential and self.next == self.disk.next_credential:
            self.write(self.disk.renewed())
        elif name == "use" and self.in_use == self.next:
            self.current, self.next = self.next, ""
        elif name == "disk lost the last write":
            self.disk = self.disk_before
        elif name == "server backed up":
            self.backup = (self.current, self.next)
        elif name == "server restored" and self.backup[0] in (self.disk.credential, self.disk.former_credential):
            self.current, self.next = self.backup  # one that is not older than one renewal


@given(st.lists(st.tuples(st.integers(1, len(RENEWAL)), st.sampled_from(FAULTS)), max_size=12))
def test_the_server_knows_a_credential_of_the_disk_whatever_happens(lives: list[tuple[int, str]]) -> None:
    """Each life gets so far with a renewal and ends with a fault: at no moment is a board without a credential."""
    world = World()
    for steps, fault in lives:
        for name in (*RENEWAL[:steps], fault):
            world.step(name)
            assert world.in_use


def test_a_whole_renewal() -> None:
    """The old one stays for a server that is restored; a next one that is there is used, unless it is in use."""
    begun = Identity(server="s", install_id="i", credential="a").with_next("b", "a")
    assert (begun.credentials, begun.with_next("x", "a")) == (("a", "b"), begun)

    assert begun.renewed().credentials == ("b", "a")
    again = begun.with_next("c", "b")  # the write that made "b" the one in use was lost
    assert (again.credential, again.next_credential, again.former_credential) == ("b", "c", "a")
