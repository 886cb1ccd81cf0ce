"""Keyframes kept for good: a memory of places, and knowing them again."""
