"""The options that set the fields of a trial."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from mvae.refusal import Refusal
from mvae.settings import Settings
from sweeps.cli.values import (
    Count,
    NotNegative,
    Positive,
    Share,
    Token,
    Whole,
    Written,
    names,
    only,
)

Binarisations = Annotated[tuple[Literal["fixed", "dynamic"], ...], BeforeValidator(names), Written("fixed,dynamic")]
"""`Trial.binarisation`, of which a pipeline makes a row each."""


class TrialOptions(BaseSettings):
    """Every trial (default: what the data set and the arm say)"""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, enable_decoding=False, validate_default=True
    )

    image_network: Token | None = None
    """Network of the image: mlp, or dcgan where the data set has one."""
    decoder_hidden: Count | None = None
    """Hidden layers of the MLP decoders: 2 in the supplement, 3 in the authors' released code."""
    latents: Count | None = None
    """Dimensions of the latent space."""
    label_weight: Positive | None = None
    """Weight (lambda) of the label's likelihood in the ELBO."""
    text_weight: Positive | None = None
    """Weight (lambda) of the text's likelihood in the ELBO."""
    attribute_weight: Positive | None = None
    """Weight (lambda) of every attribute's likelihood in the ELBO."""
    alpha: NotNegative | None = None
    """JMVAE: weight of the KLs that draw the unimodal encoders towards the joint one (0.01 in the paper)."""
    binarisation: Annotated[Binarisations, AfterValidator(only), Written("fixed|dynamic")] | None = None
    """Bits of binary_mnist's training images: fixed, drawn once, or dynamic, drawn anew each epoch (default: fixed)."""
    train_examples: Annotated[int, Field(ge=2), Written("N")] | None = None
    """Train on the first N training examples alone (default: on all of them)."""
    batch_size: Count | None = None
    """Examples a training step."""
    learning_rate: Positive | None = None
    """Learning rate of Adam."""
    annealing_epochs: Whole | None = None
    """Epochs over which beta rises linearly from 0 to 1 (default: the data set's share of all epochs)."""
    annealing_share: Share | None = None
    """The same as a share of all epochs, above 0 and up to 1 (default: the data set's)."""

    @model_validator(mode="after")
    def _annealed_in_one_way(self) -> Self:
        if self.annealing_epochs is not None and self.annealing_share is not None:
            raise Refusal(
                "--annealing-epochs and --annealing-share exclude each other: both say how long beta rises;"
                " give one of them"
            )
        return self

    def trial_fields(self) -> dict[str, Any]:
        """The fields of a Trial that the user has set, by name: every option with a field's name, except the data set.

        An option with several values is left out: the pipeline makes a row of each.
        """
        given = {
            name: getattr(self, name) for name in self.model_fields_set & Settings.model_fields.keys() - {"dataset"}
        }
        one = {name: value[0] for name, value in given.items() if isinstance(value, tuple) and len(value) == 1}
        return {name: value for name, value in {**given, **one}.items() if not isinstance(value, tuple | None)}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The command line and the caller alone: a variable NAME or EPOCHS in the environment means nothing here."""
        return (init_settings,)
