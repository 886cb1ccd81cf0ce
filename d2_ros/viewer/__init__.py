"""Published features, tracks, trajectories and maps as a Rerun recording."""
