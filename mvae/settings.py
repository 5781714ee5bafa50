"""Defines every setting of a training run, with meaning, unit and source.

mvae/trial.py defines the rules between settings, and computes a trial's key from its settings.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mvae.hyperparameters import Value

Binarisation = Literal["fixed", "dynamic"]
Pairing = Literal["reserved", "proportional", "resampled"]
Targets = Literal["own", "all"]
Precision = Literal["float32", "bfloat16"]


class Settings(BaseModel):
    """The settings of a training run. Models and the training loop read them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    dataset: str
    """Name of the data set, a key of `mvae.data.DATASETS`."""
    model: str
    """Token of the arm, a key of `mvae.models.ARMS`."""
    seed: int = Field(0, ge=0)
    """Seed of every random stream: initialisation, kept labels, batch order, noise."""
    image_network: str
    """Image encoder and decoder: mlp (Figure 1), dcgan (Figure 2), or none for data sets without images."""
    decoder_hidden: int = Field(2, ge=1, le=8)
    """Number of hidden layers of MLP decoders (2 in section 1; 3 in the authors' released code)."""
    latents: int = Field(ge=1)
    """Number of latent dimensions (section 1: 64 for the MNIST family)."""
    binarisation: Binarisation = "fixed"
    """Pixels of binary_mnist's training images: fixed (drawn once) or dynamic (drawn again each epoch). The supplement
    compares its numbers with reference [5], which uses fixed pixels."""
    vocabulary: int | None = Field(None, ge=1)
    """For sentences: number of most frequent words per language that the model knows (default: the data set's)."""
    paired_fraction: float = Field(1.0, gt=0, le=1)
    """Share of the training pairs that stay together, 0 < f <= 1 (Tables 4 and 5)."""
    pairing: Pairing
    """How often the paired set is used: reserved, proportional or resampled (see mvae/sampling.py)."""
    targets: Targets = "own"
    """Modalities that an ELBO term reconstructs: own (only its inputs, as in the paper) or all (every modality of the
    example)."""
    train_examples: int | None = Field(None, ge=2)
    """Train on only the first N training examples (default: all)."""
    keep_probability: float = Field(1.0, gt=0, le=1)
    """Probability of keeping each value of each training example, drawn once before training (Figure 5)."""
    keep_first: bool = False
    """Keep every value of the first modality, regardless of `keep_probability` (MultiVae's study)."""
    unimodal_terms: bool = True
    """Whether the MVAE trains one ELBO term per modality besides the joint term (main paper, section 3.2)."""
    k: int = Field(ge=0)
    """Number of random modality subsets per step, besides joint and unimodal ELBO terms (main paper, section 3.2)."""
    fixed_noise: bool = False
    """Share one noise draw between all ELBO terms of a step, instead of one draw per term (Figure 6 c)."""
    epochs: int = Field(ge=1)
    """Passes over the training images (section 1: 500 for MNIST; section 8: 100 for FashionMNIST's Table 4)."""
    batch_size: int = Field(ge=1)
    """Examples per training step, over all workers (section 1: 100)."""
    learning_rate: float = Field(gt=0)
    """Learning rate of Adam (section 1: 1e-3)."""
    annealing_share: float = Field(gt=0, le=1)
    """Share of all steps over which beta rises linearly from 0 to 1 (section 1: 200 of 500 epochs)."""
    annealing_epochs: int | None = Field(None, ge=0)
    """Epochs over which beta rises; replaces `annealing_share`. If larger than `epochs`, beta ends below 1."""
    image_weight: float = Field(1.0, gt=0)
    """Weight (lambda) of the image's likelihood."""
    label_weight: float = Field(gt=0)
    """Weight (lambda) of the label's likelihood. The supplement gives no value. With 50, accuracy with
    `own` targets collapses (docs/table4.md)."""
    text_weight: float = Field(gt=0)
    """Weight (lambda) of the text's likelihood. The supplement gives no value; the authors' code has 10."""
    attribute_weight: float = Field(gt=0)
    """Weight (lambda) of an attribute's likelihood. The supplement gives no value; the authors' code has 10."""
    vector_weight: float = Field(1.0, gt=0)
    """Weight (lambda) of a vector's likelihood."""
    alpha: float = Field(0.01, ge=0)
    """JMVAE: weight of the KLs that pull the unimodal encoders towards the joint encoder (section 8: 0.01)."""
    precision: Precision = "float32"
    """Number format of the networks in training. Evaluation always uses float32."""
    compile: bool = False
    """Compile the networks with torch.compile."""
    workers: int = Field(1, ge=1)
    """Number of processes that share each training step."""
    fewest_workers: int | None = Field(None, ge=1)
    """Elastic training: smallest number of workers with which training continues if other workers are lost.

    The results then depend on which workers were lost, and when.
    """
    sync_batchnorm: bool = False
    """Compute batch normalisation statistics over the rows of all workers, as a single worker would."""
    own: tuple[tuple[str, Value], ...] = ()
    """Values of all hyper-parameters that the arm declares, sorted by name (mvae/hyperparameters.py)."""

    def value(self, name: str) -> Any:
        """Returns the value of a field or of one of the arm's own hyper-parameters."""
        own = dict(self.own)
        return own[name] if name in own else getattr(self, name)

    def own_value(self, name: str) -> Any:
        """Returns the value of one of the arm's own hyper-parameters.

        Raises:
            KeyError: the arm declares no hyper-parameter of that name.
        """
        return dict(self.own)[name]

    @property
    def final_beta(self) -> float:
        """Weight of the KL at the end of training; below 1 only if `annealing_epochs` exceeds `epochs`."""
        return min(1.0, self.epochs / self.annealing_epochs) if self.annealing_epochs else 1.0
