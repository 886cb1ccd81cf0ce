"""Frame x keyframe window -> verified and aligned matches."""
