"""Where the trials of a search stand: an Optuna storage in a journal file or a database."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from bneck.specs.errors import InputError

PAUSES_S = (0.5, 1.0, 2.0, 4.0)  # between tries to reach a ledger

T = TypeVar("T")


class LedgerError(InputError):
    """A ledger that cannot be opened, was lost, or belongs to another search."""


def open_ledger(ledger: str | Path | None) -> BaseStorage:
    """Optuna's storage for a journal file or a database's URL; None keeps it in memory.

    Raises:
        LedgerError: a URL of an unknown kind, a file that is no journal, a missing driver.
    """
    if ledger is None:
        return InMemoryStorage()
    if "://" in str(ledger):
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError

        try:
            return _whole_trials(str(ledger))
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            reason = str(error).partition("\n")[0]
            raise LedgerError(
                f"the ledger {ledger} cannot be opened ({reason}); give a file, sqlite:///FILE or, after "
                "pip install 'bneck[postgresql]', postgresql+psycopg://USER@HOST/NAME"
            ) from None
    path = Path(ledger)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(path)
        return JournalStorage(JournalFileBackend(str(path)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise LedgerError(f"{path} cannot be opened as a ledger; choose another file") from None


def check_ledger(ledger: str) -> None:
    """Raise LedgerError for a ledger that cannot be opened, or is another program's database."""
    if "//" in ledger and "://" not in ledger:
        raise LedgerError(f"the ledger {ledger} is no URL; write sqlite:///FILE, or a file's path")
    if "://" not in ledger:
        return  # a journal file, which is made where it is needed
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        storage = open_ledger(ledger)
        storage.get_all_studies()
        close_ledger(storage)
    except (SQLAlchemyError, StorageInternalError) as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise LedgerError(
            f"the ledger {ledger} cannot be opened ({reason}); choose another one, in a folder that exists"
        ) from None


def close_ledger(storage: BaseStorage) -> None:
    """Close the connections to a database; the next call opens new ones."""
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


def _whole_trials(url: str) -> RDBStorage:
    """Optuna's storage, which does not ask the database about every parameter of a trial that comes whole."""
    # Optuna asks whether the trial is open and whether its distributions are those of the trials before: two
    # queries per choice, more than half of what a trial with 42 choices costs (docs/decisions.md). A trial
    # written in one go is open, and a study holds one space (`nas.study`). This is the one private part of
    # Optuna that is used; without it everything works, slower.
    from optuna.distributions import BaseDistribution, distribution_to_json
    from optuna.storages._rdb import models

    class WholeTrials(RDBStorage):
        def _set_trial_param_without_commit(
            self, session: Any, trial_id: int, param_name: str, param_value_internal: float,
            distribution: BaseDistribution, previous_distribution: BaseDistribution | None = None,
        ) -> None:  # fmt: skip
            row = models.TrialParamModel(
                trial_id=trial_id, param_name=param_name, param_value=param_value_internal,
                distribution_json=distribution_to_json(distribution),
            )  # fmt: skip
            session.add(row)

    return WholeTrials(url, engine_kwargs={"pool_pre_ping": True})


def reach(call: Callable[[], T], ledger: str | Path | None) -> T:
    """The call's result; a ledger out of reach is tried again for some seconds."""
    for pause in (*PAUSES_S, 0):
        try:
            return call()
        except _out_of_reach():
            time.sleep(pause)
    raise LedgerError(
        f"the ledger {ledger} cannot be reached; what was told is kept there, bring it back "
        "and run the same command again to go on"
    )


def _out_of_reach() -> tuple[type[Exception], ...]:
    from sqlalchemy.exc import DBAPIError  # slow to import; a journal that never fails needs none

    return OSError, DBAPIError, optuna.exceptions.StorageInternalError


def _cut_torn_line(path: Path) -> None:
    """Take off what a kill left of a last line, or the next line would be written after it."""
    if not path.is_file():
        return
    lock = JournalFileOpenLock(str(path))
    lock.acquire()
    try:
        with path.open("rb+") as file:
            data = file.read()
            if data and not data.endswith(b"\n"):
                file.truncate(data.rfind(b"\n") + 1)
    finally:
        lock.release()
