"""Stage 2: masked pre-training on a target store, and what is built on the encoder."""
