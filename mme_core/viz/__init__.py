"""Drawing on arrays (numpy and OpenCV): tracks, arrows, flow colours, HOG glyphs, Figure 4."""

from mme_core.viz.colour import motion_colour, speed_limit, wheel
from mme_core.viz.figure import figure4
from mme_core.viz.glyphs import draw_hog
from mme_core.viz.grids import below, beside, grid, readable_scale
from mme_core.viz.motion import draw_arrows, draw_tracks, draw_trails, flow_picture

__all__ = [
    "below",
    "beside",
    "draw_arrows",
    "draw_hog",
    "draw_tracks",
    "draw_trails",
    "figure4",
    "flow_picture",
    "grid",
    "motion_colour",
    "readable_scale",
    "speed_limit",
    "wheel",
]
