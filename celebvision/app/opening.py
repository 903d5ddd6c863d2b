"""The page's beginning: it can be seen before what it needs is loaded."""

from __future__ import annotations

import gc
import os
import threading
from typing import TYPE_CHECKING

import streamlit as st

from celebvision.app import SETTINGS
from celebvision.config import AppSettings

if TYPE_CHECKING:
    from celebvision.app.house import House


class Opening:
    """The house, once all that it needs is loaded: longer than a visitor likes to look at nothing."""

    def __init__(self) -> None:
        self.settings = AppSettings.model_validate_json(os.environ[SETTINGS])
        self.house: House | None = None
        self.error = ""
        threading.Thread(target=self._open, name="opening", daemon=True).start()

    def spare_collector(self) -> None:
        """Take what there is out of the garbage collector's sight; for each look whether all is loaded.

        Streamlit collects garbage after each run of a script: half a second for a million objects that torch brings and
        that will never be garbage. Some visitors who look twice a second would leave no time to load anything.
        """
        gc.freeze()

    def _open(self) -> None:
        try:
            from celebvision.app.house import House

            self.house = House(self.settings)
            gc.unfreeze()
            gc.collect()
            gc.freeze()
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
            raise


@st.cache_resource(show_spinner=False)
def opening() -> Opening:
    """One for the process."""
    return Opening()
