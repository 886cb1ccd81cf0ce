"""The synthetic sequence: a flight through a room of photographs, with exact ground truth."""

from d2_ros.sources.synthetic.options import SyntheticOptions
from d2_ros.sources.synthetic.sequence import Synthetic, open_synthetic

__all__ = ["Synthetic", "SyntheticOptions", "open_synthetic"]
