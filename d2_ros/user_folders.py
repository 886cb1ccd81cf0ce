"""This user's folders for data and caches, by the XDG base directory specification."""

from __future__ import annotations

import os
from pathlib import Path


def user_folder(variable: str, below_home: str) -> Path | None:
    """Return this package's folder below ``$variable``, or below the home without that.

    None for a user who has neither the variable nor a home, such as a container's bare number.

    Parameters
    ----------
    variable
        ``XDG_DATA_HOME`` or ``XDG_CACHE_HOME``.
    below_home
        What stands for it, relative to the home.
    """
    if given := os.environ.get(variable):
        return Path(given) / "d2_ros"
    try:
        return Path.home() / below_home / "d2_ros"
    except RuntimeError:
        return None
