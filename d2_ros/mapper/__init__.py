"""A reference mapper that knows the published topics only: tracks in, a map out."""
