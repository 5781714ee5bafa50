"""What is computed from a trained model, and what of it is shown."""
