"""`app`: the page that people upload pictures to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from celebvision.config import AppSettings
from celebvision.job import JobFailed, Outcome
from celebvision.logs import say

SETTINGS = "CELEBVISION_APP"  # in the environment of the page's process: its settings as JSON
PAGE = Path(__file__).with_name("page.py")


def app(settings: AppSettings) -> Outcome:
    """Serve the page until Ctrl-C.

    Raises:
        JobFailed: Streamlit is not installed, or ended by itself.
    """
    try:
        import streamlit  # noqa: F401 - looked for, before a process fails by it
    except ImportError:
        raise JobFailed("app: Streamlit is not installed: pip install 'celebvision[app]'") from None
    words = [sys.executable, "-m", "streamlit", "run", str(PAGE)]
    flags = {
        "server.address": settings.address,
        "server.port": settings.port,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "server.maxUploadSize": max(1, settings.max_bytes // 2**20),
        "browser.gatherUsageStats": "false",
        "client.showErrorDetails": "none",
        "client.toolbarMode": "minimal",
    }
    words += [f"--{name}={value}" for name, value in flags.items()]
    say(f"http://{settings.address}:{settings.port} is ready in some seconds; Ctrl-C ends it")
    with subprocess.Popen(words, env=os.environ | {SETTINGS: settings.model_dump_json(by_alias=True)}) as page:
        try:
            status = page.wait()
        except KeyboardInterrupt:
            page.terminate()
            page.wait()
            return Outcome()
    raise JobFailed(f"app: the page ended with status {status}; what it said stands above")
