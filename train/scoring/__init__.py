"""How good a model is: held-out losses, probes, accuracies."""
