"""Published features, matches and tracks for programs that build maps: COLMAP."""
