"""Models, data, training and evaluation of the multimodal VAE. This package imports neither Ray nor MLflow.

Each part imports only parts below it in this list (`tests/test_rooms.py`):

plugins.py   loads arms and data sets from a user's own file; reports an error in that file as one line
training/    the training loop, its steps, checkpoints, data-parallel training
evaluation/  accuracy, likelihoods by importance sampling, samples, translation
trial.py     Trial: rules between settings, and the content key
models/      one file per arm with its loss; the MVAE's loss (elbo.py), product of experts (models/gaussian.py)
networks/    encoders and decoders of Figures 1 to 4
data/        data sets: mnist/, polymnist/, faces/, sentences/; conversion to Arrow; fingerprints
sampling.py  which examples each training step uses; supervision.py: which pairs are kept
decimals.py  formats numbers
measure.py   the metrics that can be computed from a trained trial
storage/     files and object storage, with atomic writes
settings.py  every setting of a training run; hyperparameters.py: settings that an arm declares
workers.py, streams.py, limits.py, home.py, refusal.py  worker processes, random streams, cores and memory, home, errors

mvae/gaussian.py, mvae/likelihood.py and mvae/data/vision.py keep old import paths alive for models in MLflow and for
plug-ins.
"""
