"""A reference mapper that knows the published topics only: tracks with covariances in, a map out."""
