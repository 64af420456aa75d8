"""Stage 1 for one video: flow, tracked points and HOG along the tracks, without Ray."""

from mme_core.extract.video_targets import VideoTargets, extract_video, stream_tubelets

__all__ = ["VideoTargets", "extract_video", "stream_tubelets"]
