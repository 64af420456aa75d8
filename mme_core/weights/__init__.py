"""Weights in and out: files of this project, VideoMAE, MME and transformers."""
