"""Tracks -> sub-pixel tracks with covariances."""
