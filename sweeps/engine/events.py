"""Passes the events of trials from Tune to the driver. Does not use Ray."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sweeps.trials.messages import Message


@dataclass(frozen=True)
class Listener:
    """The driver's callbacks for the events of trials. They are called in the driver's main thread."""

    started: Callable[[str], None]
    """Called with a trial's key when the trial starts or restarts."""
    word: Callable[[str, Message], None]
    """Called with a trial's key and each message about the trial. The last message has `done` or `failed` set."""


class Events:
    """Calls the listener for each event of a trial until the trial has reported its result.

    A trial's process may die after it has sent its last message, but before Tune has ended the trial. Tune then
    restarts the trial. The trial already has its result, so the listener is not called again for this trial.
    """

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.done = set[str]()

    def started(self, key: str) -> None:
        self.notify(key, self.listener.started)

    def sent(self, key: str, message: Message) -> None:
        self.notify(key, self.listener.word, message)
        if message.done:
            self.done.add(key)

    def restarted(self, key: str, why: str) -> None:
        self.notify(key, self.listener.word, Message(again=why))

    def lost(self, key: str, why: str, failures: int, details: str = "") -> None:
        """Reports a lost trial that Tune will not restart.

        Args:
            why: reason of the last loss.
            failures: number of times that the trial was lost.
            details: all errors, oldest first.
        """
        text = f"{why}; no retries left after {failures} failures"
        self.notify(key, self.listener.word, Message(failed=text, details=details))

    def notify(self, key: str, callback: Callable[..., None], *arguments: Any) -> None:
        if key not in self.done:
            callback(key, *arguments)
