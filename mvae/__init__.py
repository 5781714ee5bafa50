"""The science of the multimodal VAE: data, networks, objective, training, evaluation. Knows neither Ray nor MLflow."""
