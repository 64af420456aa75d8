"""How good it is: held-out losses, probes, accuracies."""
