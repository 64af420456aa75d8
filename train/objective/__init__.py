"""What is learnt: the losses of pre-training and of fine-tuning."""
