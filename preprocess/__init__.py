"""Stage 1: turns a data set of videos into a store of motion-trajectory targets."""
