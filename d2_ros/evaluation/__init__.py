"""Judging the front-end, and its peers, against ground truth."""
