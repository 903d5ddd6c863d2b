"""All that the page's visitors share: models, the queue, the metrics. It imports torch: it is made behind the page."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from celebvision.app.models import Models
from celebvision.app.queue import Queue
from celebvision.app.told import Told
from celebvision.app.work import Refused
from celebvision.config import AppSettings
from celebvision.job import JobFailed
from celebvision.registry import RegistryError
from celebvision.storage import StorageError

log = logging.getLogger(__name__)
SAID = (Refused, JobFailed, RegistryError, StorageError)  # errors whose words are for people


class House:
    """One for the process."""

    def __init__(self, settings: AppSettings) -> None:
        self.settings, self.models, self.queue = settings, Models(settings), Queue(settings.at_once)
        self.told = Told(lambda: len(self.queue), lambda: self.models.held_bytes)
        if settings.metrics_port:
            self.told.serve(settings.address, settings.metrics_port)
        self._warm()

    def _warm(self) -> None:
        """Load what labels, so that the first visitor need not wait for it."""
        for model in self.models.classifiers():
            try:
                self.models.classifier(model)
            except SAID as error:
                log.warning("%s", error)  # whoever asks for it is told, too

    @contextmanager
    def request(self, does: str, on_place: Callable[[int], None], on_error: Callable[[str], None]) -> Iterator[None]:
        """Wait for one's turn and do the block; what goes wrong is a sentence for `on_error`.

        Args:
            does: label, redraw or paint.
            on_place: gets how many are before one.
            on_error: gets what to tell the person.
        """
        how = "failed"
        try:
            with self._timed_turn(on_place), self.told.timed("work"):
                yield
            how = "done"
        except Refused as error:
            how = "refused"
            on_error(str(error))
        except SAID as error:
            on_error(str(error))
        except (RuntimeError, ValueError, MemoryError):
            log.exception("a request failed")
            on_error("This picture could not be worked on; the log of the page says why.")
        finally:
            self.told.ended(does, how)

    @contextmanager
    def _timed_turn(self, on_place: Callable[[int], None]) -> Iterator[None]:
        waited = self.told.timed("queue")
        waited.__enter__()
        with self.queue.turn(on_place):
            waited.__exit__(None, None, None)
            yield
