"""Encoders and decoders of the supplement's Figures 1 to 4, one file per kind of modality.

image.py, dcgan.py   images: MLP, small DCGAN, DCGAN of large images
label.py, attribute.py, text.py   labels, attributes, texts and sentences
layers.py            layers one after the other
normalisation.py     batch normalisation whose statistics stay within an ELBO term
"""
