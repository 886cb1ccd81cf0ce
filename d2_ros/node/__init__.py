"""Everything that imports rclpy, cv_bridge or a message package."""
