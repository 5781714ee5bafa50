"""Measures a trained model, and draws samples from it.

measures.py    computes a measure, chosen by name and version, with the files below
measurable.py  which measures an arm and a data set support
accuracy.py, attributes.py, readout.py   predictions (Tables 4 and 5, Figure 5)
likelihood_estimates.py, estimator.py, importance.py   likelihoods by importance sampling (Tables 1 and 2, Figure 6)
translation.py, tokens.py   sentences (Tables 6 to 8)
vision.py, vision_tasks.py   views of faces (Figures 7 to 10)
coherence.py, judges.py   coherence on PolyMNIST, and the classifiers of generated images
fid.py         FID of generated images, computed with an Inception network from a file
samples.py, sheets.py, words.py   samples for people to look at, as sheets of images and tables of words
"""
