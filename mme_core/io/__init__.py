"""Reads local and remote files, videos and their timestamps."""
