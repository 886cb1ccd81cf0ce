"""The one exception type that means "the input is bad", as opposed to a bug."""


class D2RosError(Exception):
    """Bad input, said in one sentence that names the thing, its value and the remedy.

    The command line prints the sentence and exits with code 2; the node logs it, counts
    it in its diagnostics and keeps running.
    """
