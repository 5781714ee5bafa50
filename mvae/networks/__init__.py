"""Encoders and decoders of the supplement's Figures 1 to 4, one file per kind of modality.

image.py, dcgan.py   images: MLP, small DCGAN, DCGAN for large images
convolutional.py     images of any square side: the networks of PolyMNIST's studies
vector.py            vectors
label.py, attribute.py, text.py   labels, attributes, texts and sentences
layers.py            sequences of layers, MLP
normalisation.py     batch normalisation with separate statistics for each ELBO term
"""
