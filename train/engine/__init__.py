"""What every run needs: the loop, the optimiser, checkpoints, processes, the log."""
