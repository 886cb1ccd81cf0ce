"""Fine-tuning of detection and description together, on correspondences anyone can make."""
