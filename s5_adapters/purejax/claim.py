"""One run owns a folder: claimed before anything is compiled, held by a lock that dies with its process.

The lock is the system's (flock) on the run's ``config.json``. A run that was killed therefore leaves none
behind, and whoever only reads is not kept out. On a file system without locks a new run's folder is still
claimed by one run alone, since one alone can create the file; that a run is resumed twice is not seen there.
"""

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

from s5_adapters.purejax.run_folder import CONFIG_NAME, RunConfig, read_config, write_config

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NOT_EMPTY = "is not empty; resume the run in it, or take another folder"
_GOING_ON = "a run is going on in it; wait for its end, or take another folder"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)
_ATTEMPTS = 100
_LOCK_ATTEMPTS = 5
_SECONDS_BETWEEN = 0.01


class FolderTakenError(ValueError):
    """A folder is another run's, or holds something else; the message is one line.

    Attributes:
        run_dir: the folder.
        owner: the configuration of the run that it belongs to; None where that cannot be read.
    """

    def __init__(self, run_dir: Path, message: str):
        super().__init__(f"run folder {run_dir}: {message}")
        self.run_dir = run_dir
        self.owner = _owner(run_dir)

    def refuse_another(self, run: RunConfig) -> None:
        """Refuse to go on with a run in the folder, unless that is its run.

        Raises:
            ValueError: one line: what is wrong with its ``config.json``, or in which fields it is another.
        """
        if not self.run_dir.is_dir():
            raise self
        owner = self.owner or read_config(self.run_dir)
        if different := owner.differences(run):
            raise ValueError(f"{self}; {different}")


class _Lock:
    """A lock on an open file, shared by the claims of this process."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor
        self.claims = 0
        self.is_running = False


_locks: dict[tuple[int, int], _Lock] = {}
"""The locks that this process holds, by device and inode."""


class Claim:
    """A hold on the folder of a run, until ``release`` or the end of the process.

    Other processes are kept out. In this one a trainer and its resumption may both hold it, but only one at a
    time runs.
    """

    _is_held = False

    def __init__(self, run_dir: Path, identity: tuple[int, int], made: list[Path]):
        self.run_dir, self._identity, self._made = run_dir, identity, made
        self._lock = _locks[identity]
        self._lock.claims += 1
        self._is_held = True

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Train in the folder, and release it afterwards.

        Raises:
            FolderTakenError: another trainer of this process is running in it.
        """
        if self._lock.is_running:
            raise FolderTakenError(self.run_dir, _GOING_ON)
        self._lock.is_running = True
        try:
            yield
        finally:
            self._lock.is_running = False
            self.release()

    def abandon(self) -> None:
        """Take away what claiming a new run's folder made, since nothing was trained, and release it."""
        (self.run_dir / CONFIG_NAME).unlink(missing_ok=True)
        for folder in self._made:
            with contextlib.suppress(OSError):  # it holds something of somebody else's by now
                folder.rmdir()
        self.release()

    def release(self) -> None:
        """Let go of the folder; a second time does nothing."""
        if self._is_held:
            self._is_held = False
            self._lock.claims -= 1
            if not self._lock.claims:
                del _locks[self._identity]
                os.close(self._lock.descriptor)

    def __del__(self) -> None:
        """Let go of what a trainer that was never run held."""
        self.release()


def claim_new(run_dir: Path, config: RunConfig) -> Claim:
    """Make the folder of a new run, with its ``config.json``, and claim it.

    An empty folder will do, and one that holds the ``config.json`` of the same run and nothing else: what a
    run leaves that was killed before it trained.

    Raises:
        FolderTakenError: it is a file, holds something, or is another run's.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise FolderTakenError(run_dir, "is a file, expected a folder or a name not taken")
    config = config.completed()  # as a folder holds it
    for _ in range(_ATTEMPTS):
        _refuse_contents(run_dir)
        missing = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            descriptor, is_new = _create(run_dir / CONFIG_NAME)
        except FileNotFoundError:  # another run has just abandoned the folder
            continue
        if _identity(os.fstat(descriptor)) in _locks:
            os.close(descriptor)
            raise FolderTakenError(run_dir, _NOT_EMPTY)
        identity = _lock(run_dir, descriptor, unprotected=is_new)
        if identity is None:
            continue
        claim = Claim(run_dir, identity, missing)
        try:
            _refuse_contents(run_dir)
            if not is_new and (run_dir / CONFIG_NAME).stat().st_size and _owner(run_dir) != config:
                raise FolderTakenError(run_dir, _NOT_EMPTY)
            write_config(run_dir, config)
        except BaseException:
            if is_new:
                claim.abandon()
            claim.release()
            raise
        return claim
    raise FolderTakenError(run_dir, _GOING_ON)


def claim_existing(run_dir: Path) -> Claim:
    """Claim the folder of a run, to go on in it or to remove it.

    Raises:
        FolderTakenError: the run is going on.
    """
    descriptor = os.open(run_dir / CONFIG_NAME, os.O_RDWR)
    identity = _identity(os.fstat(descriptor))
    if identity in _locks:
        os.close(descriptor)
        if _locks[identity].is_running:
            raise FolderTakenError(run_dir, _GOING_ON)
        return Claim(run_dir, identity, [])
    locked = _lock(run_dir, descriptor, unprotected=True)
    if locked is None:
        raise FolderTakenError(run_dir, _GOING_ON)
    return Claim(run_dir, locked, [])


def is_going_on(run_dir: Path) -> bool:
    """Tell whether a process trains in the folder of a run; never where there are no locks."""
    descriptor = os.open(run_dir / CONFIG_NAME, os.O_RDONLY)
    try:
        if _identity(os.fstat(descriptor)) in _locks:
            return True
        return _try_lock(descriptor, is_shared=True) is False
    finally:
        os.close(descriptor)


def _refuse_contents(run_dir: Path) -> None:
    if run_dir.is_dir() and any(path.name != CONFIG_NAME for path in run_dir.iterdir()):
        raise FolderTakenError(run_dir, _NOT_EMPTY)


def _create(path: Path) -> tuple[int, bool]:
    """Open a file, made if need be, which one process alone can do: its descriptor, and whether it is new."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
    except FileExistsError:
        return os.open(path, os.O_RDWR), False


def _lock(run_dir: Path, descriptor: int, *, unprotected: bool) -> tuple[int, int] | None:
    """Lock an open ``config.json``; None where it is no longer the one in the folder.

    Args:
        run_dir: the folder.
        descriptor: of the file; closed unless it gets locked.
        unprotected: go on without a lock where there are none.

    Raises:
        FolderTakenError: another process holds the lock, or there are no locks.
    """
    identity = _identity(os.fstat(descriptor))
    try:
        is_free = _try_lock(descriptor)
        if is_free is False or (is_free is None and not unprotected):
            raise FolderTakenError(run_dir, _NOT_EMPTY if is_free is None else _GOING_ON)
        is_current = identity == _identity((run_dir / CONFIG_NAME).stat())
    except FileNotFoundError:
        is_current = False
    except BaseException:
        os.close(descriptor)
        raise
    if not is_current:
        os.close(descriptor)
        return None
    _locks[identity] = _Lock(descriptor)
    return identity


def _try_lock(descriptor: int, *, is_shared: bool = False) -> bool | None:
    """Tell whether the lock was free, and so was taken; None where there are no locks.

    Whoever asks whether a run goes on holds it for a moment, shared: a run that wants it tries again.
    """
    if fcntl is None:
        return None
    for waited in range(1 if is_shared else _LOCK_ATTEMPTS):
        time.sleep(_SECONDS_BETWEEN * bool(waited))
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            return True
        except (BlockingIOError, PermissionError):
            continue
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return None
    return False


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def _owner(run_dir: Path) -> RunConfig | None:
    """Return whose run a folder is; wait for one that has just claimed it to write that down."""
    path = run_dir / CONFIG_NAME
    for _ in range(_ATTEMPTS):
        try:
            return read_config(run_dir)
        except ValueError:
            if not path.is_file() or path.stat().st_size:
                return None
            time.sleep(_SECONDS_BETWEEN)
    return None
