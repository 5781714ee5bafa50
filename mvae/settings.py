"""Every field of a training run, with its meaning, unit and source. Rules between fields and the key: mvae/trial.py."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Binarisation = Literal["fixed", "dynamic"]
Pairing = Literal["reserved", "proportional", "resampled"]
Targets = Literal["own", "all"]
Precision = Literal["float32", "bfloat16"]


class Settings(BaseModel):
    """The fields of a training run, as models and training read them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    dataset: str
    """Data set, by its name in `mvae.data.DATASETS`."""
    model: str
    """Arm of the table, by its token in `mvae.models.ARMS`."""
    seed: int = Field(0, ge=0)
    """Seed of every stream: initialisation, labels kept, batch order, noise."""
    image_network: str
    """Image encoder and decoder: mlp (Figure 1) or dcgan (Figure 2); none where there are no images."""
    decoder_hidden: int = Field(2, ge=1, le=8)
    """Hidden layers of the MLP decoders (section 1 says 2; the authors' released code has 3)."""
    latents: int = Field(ge=1)
    """Dimensions of z (section 1: 64 for the MNIST family)."""
    binarisation: Binarisation = "fixed"
    """Bits of the training images of binary_mnist: fixed, drawn once (as in reference [5], with which the supplement
    aligns its numbers), or dynamic, drawn anew each epoch (see mvae/data/mnist/binarisation.py)."""
    vocabulary: int | None = Field(None, ge=1)
    """Words that a model of sentences knows of each language, the most frequent; None: as many as the data set says."""
    paired_fraction: float = Field(1.0, gt=0, le=1)
    """Share of the training pairs that stay together, 0 < f <= 1 (Tables 4 and 5)."""
    pairing: Pairing
    """How often the paired set is shown: reserved, proportional or resampled (see mvae/sampling.py)."""
    targets: Targets = "own"
    """What a term reconstructs: own, the modalities it conditions on (the paper's formula), or all that are present."""
    train_examples: int | None = Field(None, ge=2)
    """Train on so many examples alone, the first of the training split; None: on all of them."""
    keep_probability: float = Field(1.0, gt=0, le=1)
    """Probability with which each value of each training example is kept, once, before training (Figure 5)."""
    k: int = Field(ge=0)
    """Random subsets of modalities a step, beside the joint and the unimodal ELBO terms (main paper, section 3.2)."""
    fixed_noise: bool = False
    """One noise draw shared by all ELBO terms of a step instead of one a term (Figure 6 c)."""
    epochs: int = Field(ge=1)
    """Passes over the training images (section 1: 500 for MNIST; section 8: 100 for FashionMNIST's Table 4)."""
    batch_size: int = Field(ge=1)
    """Global minibatch size, however many workers share it (section 1: 100)."""
    learning_rate: float = Field(gt=0)
    """Adam's step size (section 1: 1e-3)."""
    annealing_share: float = Field(gt=0, le=1)
    """Share of all steps over which beta rises linearly from 0 to 1 (section 1: 200 of 500 epochs)."""
    annealing_epochs: int | None = Field(None, ge=0)
    """Epochs over which beta rises, in place of the share; above `epochs`, beta ends below 1, which is recorded."""
    image_weight: float = Field(1.0, gt=0)
    """Likelihood weight lambda of the image."""
    label_weight: float = Field(gt=0)
    """Likelihood weight lambda of the label (1: the supplement names none; 50 ruins `own` targets: docs/table4.md)."""
    text_weight: float = Field(gt=0)
    """Likelihood weight lambda of the text (1: the supplement names none; 10 in the authors' released code)."""
    attribute_weight: float = Field(gt=0)
    """Likelihood weight lambda of every attribute (1: the supplement names none; 10 in the authors' released code)."""
    alpha: float = Field(0.01, ge=0)
    """JMVAE: weight of the KLs that draw the unimodal encoders towards the joint one (section 8: 0.01)."""
    precision: Precision = "float32"
    """Number format of the networks in training; evaluation is always float32."""
    compile: bool = False
    """Run the networks through torch.compile."""
    workers: int = Field(1, ge=1)
    """Processes that share each training step."""
    fewest_workers: int | None = Field(None, ge=1)
    """Elastic: so few processes will do while others are lost. What it gives depends on what happened."""
    sync_batchnorm: bool = False
    """Batch normalisation by the statistics of all workers' rows, as one worker would have them."""

    @property
    def final_beta(self) -> float:
        """Beta at the end of training: below 1 only if `annealing_epochs` exceeds `epochs`."""
        return min(1.0, self.epochs / self.annealing_epochs) if self.annealing_epochs else 1.0
