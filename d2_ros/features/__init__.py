"""Image -> keypoints, scores and descriptors."""
