"""Where frames come from: bags, dataset folders, videos and the synthetic sequence."""

from d2_ros.sources.base import Frame, Source
from d2_ros.sources.opening import open_source

__all__ = ["Frame", "Source", "open_source"]
