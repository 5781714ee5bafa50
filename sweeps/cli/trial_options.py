"""Options that set the hyper-parameters of every trial."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from mvae.settings import Settings
from sweeps.cli.values import (
    Assignments,
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
"""Values of `Trial.binarisation`; the table has one row per value."""


class TrialOptions(BaseSettings):
    """Options of every trial. Each option sets the field of the same name in `Settings`.

    If an option has no docstring, the field's docstring is its help text.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, enable_decoding=False, validate_default=True
    )

    offers: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Names that `--help` lists for --dataset and --arms. By default, all data sets and arms are listed."""

    set: Assignments = ()
    """Hyper-parameters that arms declare for themselves, such as beta=2.5,samples=10. A value applies only to arms
    that declare the hyper-parameter."""
    image_network: Token | None = None
    decoder_hidden: Count | None = None
    latents: Count | None = None
    label_weight: Positive | None = None
    text_weight: Positive | None = None
    attribute_weight: Positive | None = None
    alpha: NotNegative | None = None
    binarisation: Annotated[Binarisations, AfterValidator(only), Written("fixed|dynamic")] | None = None
    train_examples: Annotated[int, Field(ge=2), Written("N")] | None = None
    """Train only on the first N training examples (default: all)."""
    batch_size: Count | None = None
    learning_rate: Positive | None = None
    annealing_epochs: Whole | None = None
    """Epochs over which beta rises linearly from 0 to 1 (default: --annealing-share of all epochs)."""
    annealing_share: Share | None = None

    def trial_fields(self) -> dict[str, Any]:
        """Returns the fields of a Trial that the user has set, by name, except the data set.

        An option with several values is left out, because the pipeline makes one row per value.
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
        """Ignores environment variables such as NAME or EPOCHS."""
        return (init_settings,)
