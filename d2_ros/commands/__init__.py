"""The verbs of ``d2-ros``, one module each."""
