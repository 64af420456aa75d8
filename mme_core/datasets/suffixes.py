"""The suffixes of video files."""

from __future__ import annotations

# What FFmpeg reads under these names is a video; pictures and sound alone have others.
_VIDEOS = """
    3g2 3gp amv apng asf avi dav dif divx dv f4v flv gif gxf h264 h265 hevc ismv ivf lrv m1v m2t
    m2ts m2v m4v mj2 mjpeg mjpg mkv mod mov mp4 mpe mpeg mpg mpv mts mxf nsv nut obu ogm ogv qt rm
    rmvb roq swf tod trp ts vob webm wmv wtv y4m
"""
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _VIDEOS.split())
