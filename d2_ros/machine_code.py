"""Functions on arrays compiled to machine code (Numba), where neither torch nor NumPy is fast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

# Sums may be reordered, which lets them use vectors; NaN stays NaN, for the gates to see it.
_FAST = {"reassoc", "contract", "arcp", "nsz"}


def machine_code(signature: Any = None, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function, and keep the code on disk where there is room for it.

    What is kept is compiled anew when the function's own file changes, and only then: constants of
    other files must come in as arguments.

    Parameters
    ----------
    signature
        Types of the arguments (Numba's); if given, it is compiled now and not at the first frame.
    options
        Further ones of :func:`numba.njit`.
    """
    options |= {"nogil": True, "fastmath": _FAST, "error_model": "numpy"}

    def compile_function(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(signature, cache=True, **options)(function)
        except RuntimeError:  # no folder can be written: it is compiled anew at every start
            return numba.njit(signature, **options)(function)

    return compile_function
