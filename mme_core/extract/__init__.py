"""Stage 1 for one video: optical flow, tracked points and HOG along the tracks."""

from mme_core.extract.results import VideoTargets
from mme_core.extract.video_targets import extract_video, stream_tubelets

__all__ = ["VideoTargets", "extract_video", "stream_tubelets"]
