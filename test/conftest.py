"""What holds for every test."""

from __future__ import annotations

import signal

# A shell that starts the tests in the background leaves Ctrl-C ignored, and every process the
# tests start would inherit that; the tests that press Ctrl-C need it to work.
signal.signal(signal.SIGINT, signal.default_int_handler)
