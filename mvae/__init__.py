"""The science of the multimodal VAE: data, networks, objective, training and evaluation; knows nothing of Ray or MLflow."""
