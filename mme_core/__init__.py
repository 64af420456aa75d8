"""Definitions both stages share: pure functions on arrays, and the store between the stages."""
