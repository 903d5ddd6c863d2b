"""The page's beginning: it can be seen before what it needs is loaded."""

from __future__ import annotations

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

    def _open(self) -> None:
        try:
            from celebvision.app.house import House

            self.house = House(self.settings)
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
            raise


@st.cache_resource(show_spinner=False)
def opening() -> Opening:
    """One for the process."""
    return Opening()
