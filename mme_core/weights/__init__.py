"""Reads and writes weights of this project, VideoMAE, MME and transformers."""
