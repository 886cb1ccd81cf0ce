"""d2_ros: D2-Net features with multi-view refinement, as a ROS 2 front-end."""

__version__ = "0.1.0"
