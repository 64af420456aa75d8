"""What is minimised: the losses of pre-training and fine-tuning."""
