"""The science of the multimodal VAE: data, networks, objective, training, evaluation. Knows nothing of Ray or MLflow."""
