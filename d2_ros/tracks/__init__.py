"""Aligned matches -> tracks over a window of keyframes."""
