"""Where the time of a frame goes on this machine, and how far that is from its limits."""
