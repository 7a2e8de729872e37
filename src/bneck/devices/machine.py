"""What several bneck processes on one machine agree on: who times next, and on which cores.

Both are locks on files (flock), which the kernel releases when a process ends in whatever way. Like
`timing`, this runs on devices too and knows nothing else of bneck.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")
FAST = 0.9  # of the highest clock: favoured cores differ by a few percent, slow ones by far more
TICKETS = 256  # more than there are ever processes that wait
LONGEST_S, POLL_S = 600.0, 0.1  # of giving way
LOG = logging.getLogger("bneck")


def lock_folder() -> Path:
    """Where this user's locks on this machine are."""
    # Not the cache folder: it may differ in each shell, and be on a disk that several machines share.
    return Path(f"/tmp/bneck-{os.getuid()}")


class Machine:
    """The cores that this process times on, and its turns at timing.

    Where the folder cannot be used, processes do not see each other; a warning says so once.

    Args:
        folder: of the lock files; None takes `lock_folder`.
        cpus: where the system describes its cores.
    """

    def __init__(self, folder: Path | None = None, cpus: Path = CPUS) -> None:
        self._folder = lock_folder() if folder is None else folder
        self._cpus = cpus
        self._claims: dict[int, int] = {}  # cores, and the files whose locks claim them
        weakref.finalize(self, _close, self._claims)
        self._chosen: dict[tuple[int, frozenset[int]], list[int]] = {}
        self._told = set[str]()
        self._timing = 0  # announcements of this process

    @contextmanager
    def timing(self, *, alone: bool = False) -> Iterator[None]:
        """Announce that this process times for a while: work of other processes gives way.

        Several may time at once, and take turns; with `alone` this one waits until no other does, and the
        others wait for it.
        """
        wanted = self._taken("timing alone") if alone else None
        # A lock that is shared again and again would never be free for the one that wants it alone.
        while not alone and not self._free("timing alone"):
            time.sleep(POLL_S)
        file = self._taken("timing", fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        _let_go(wanted)
        self._timing += 1
        try:
            yield
        finally:
            self._timing -= 1
            _let_go(file)

    def give_way(self, longest_s: float = LONGEST_S) -> None:
        """Wait while other processes time here, `longest_s` at most; for work that may pause at any step.

        Training on every core would make each burst of theirs a disturbed one.
        """
        end = time.monotonic() + longest_s
        # What this process times itself is no reason to wait.
        while not self._timing and not self._free("timing") and time.monotonic() < end:
            time.sleep(POLL_S)

    def _free(self, name: str) -> bool:
        """Whether no other process has the lock."""
        if (path := self._path(name)).is_file():
            with suppress(OSError), path.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
        return True

    def _path(self, name: str) -> Path:
        return self._folder / (re.sub(r"[^\w.-]", "-", name) + ".lock")

    @contextmanager
    def turn(self, device: str = "machine") -> Iterator[None]:
        """Keep other processes from timing on a device; each waits for its turn. Hold it for one burst."""
        # Turns come in the order of asking: a lock alone would go again and again to the process
        # that has just let go of it, as it is awake. So each process draws a ticket, and waits until
        # the owner of the ticket before has let go of that.
        counter = self._taken(f"{device}.counter")
        number = _drawn(counter)
        ticket = self._taken(f"{device}.{number % TICKETS}")
        _let_go(counter)
        _let_go(self._taken(f"{device}.{(number - 1) % TICKETS}"))
        turn = self._taken(f"{device}.turn")  # the one before may have died before its turn
        try:
            yield
        finally:
            _let_go(turn)
            _let_go(ticket)

    def cores(self, count: int, allowed: Collection[int]) -> list[int]:
        """The `count` cores of `allowed` to time on, the same at every call; all if there are fewer.

        Fast cores come before slow ones, cores that no other process claims before those that one
        does. Where others claim every fast core, one is shared: only one process times at a time,
        and a slow core would time something else.
        """
        key = (count, frozenset(allowed))
        if key not in self._chosen:
            clocks = {core: self.clock(core) for core in allowed}
            ranked = sorted(allowed, key=lambda core: (clocks[core], core), reverse=True)
            least = FAST * max(clocks.values(), default=0)
            chosen: list[int] = []
            for fast in (True, False):
                group = [core for core in ranked if (clocks[core] >= least) == fast]
                for core in group:
                    if len(chosen) < count and self._claim(core):
                        chosen.append(core)
                shared = [core for core in group if core not in chosen]
                chosen += shared[: count - len(chosen)]
            self._chosen[key] = chosen
        return self._chosen[key]

    def clock(self, core: int) -> int:
        """The highest clock of a core in kHz; 0 where the system does not tell."""
        try:
            text = (self._cpus / f"cpu{core}/cpufreq/cpuinfo_max_freq").read_text(encoding="ascii")
            return int(text)
        except (OSError, ValueError):
            return 0

    def _claim(self, core: int) -> bool:
        """Whether the core is this process's until it ends."""
        if core not in self._claims:
            file = self._taken(f"core-{core}", fcntl.LOCK_EX | fcntl.LOCK_NB)
            if file is None:
                return False
            self._claims[core] = file
        return True

    def _taken(self, name: str, kind: int = fcntl.LOCK_EX) -> int | None:
        """The lock of that name; None where another process has it, or where there can be none."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Opened each time: what cleans /tmp may have removed the file.
            file = os.open(self._path(name), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            self._tell(
                f"{self._folder} cannot be written ({error.strerror}), so bneck processes on this "
                "machine may time at once and disturb each other"
            )
            return None
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except OSError:
            if kind & fcntl.LOCK_NB:
                os.close(file)
                return None
            if kind == fcntl.LOCK_EX:  # a shared lock mostly waits for a glance of `give_way`
                self._tell("another bneck process is measuring on this device; the two take turns")
            fcntl.flock(file, kind)
        return file

    def _tell(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            LOG.warning(sentence)


def _drawn(counter: int | None) -> int:
    """The next number of a file that counts."""
    if counter is None:
        return 0
    number = int(os.pread(counter, 20, 0) or b"0") + 1
    os.pwrite(counter, b"%020d" % number, 0)
    return number


def _let_go(file: int | None) -> None:
    if file is not None:
        # Also where a process forked meanwhile holds the file open.
        fcntl.flock(file, fcntl.LOCK_UN)
        os.close(file)


def _close(claims: dict[int, int]) -> None:
    for file in claims.values():
        os.close(file)


THIS = Machine()
