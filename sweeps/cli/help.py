"""The two help pages: `--help` fits one screen, `--help-all` explains every option.

`--help` shows the first two paragraphs of the pipeline's docstring, then the pipeline's own options, then, in groups,
the options that every pipeline has. The help of an option is the first paragraph of the option's docstring. In the last
two groups, `--help` only names the options. `--help-all` shows all docstrings in full.
"""

import sys
import textwrap
from argparse import SUPPRESS, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterable, Sequence
from inspect import cleandoc, get_annotations
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic.fields import FieldInfo

from mvae.refusal import Refusal
from mvae.settings import Settings
from sweeps.cli.programs import how_to_start
from sweeps.cli.trial_options import TrialOptions
from sweeps.cli.values import Written, unknown_option

FULL = "--help-all"
PAGE_WIDTH = 120

GROUPS = {
    "What to run": ("dataset", "arms", "seeds", "epochs", "preset", "plan", "report", "plugins"),
    "Where things are": ("name", "storage", "data_root", "cache", "tracking_uri"),
}
HOW, EVERY_TRIAL = "How it runs", "Every trial"
ONLY_NAMED = (HOW, EVERY_TRIAL)
"""Groups whose options `--help` does not explain."""


def explanation(options: type[TrialOptions], name: str) -> str:
    """Returns an option's help text: its docstring, or else the docstring of its field in `Settings`, and the default.

    `{names}` in the docstring becomes the list of names that the option takes.
    """
    field = options.model_fields[name]
    text, default = field.description, field.default
    if text is None:
        setting = Settings.model_fields[name]
        text = setting.description or ""
        default = default or ("the data set's" if setting.is_required() else setting.default)
    summary, *details = text.split("\n\n")
    known = not isinstance(default, bool) and default not in (None, ()) and field.default_factory is None
    if known and "(default:" not in summary:
        values = default if isinstance(default, tuple) else (default,)
        shown = ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
        summary = f"{summary.rstrip('.')} (default: {shown})."
    if "{names}" in summary:
        from mvae.data import DATASETS
        from mvae.models import ARMS

        names: dict[str, Iterable[str]] = {"dataset": DATASETS, "arms": ARMS, **options.offers}
        summary = summary.replace("{names}", ", ".join(names[name]))
    return "\n\n".join([summary, *details])


class Parser(ArgumentParser):
    """Parses a pipeline's command line for pydantic-settings. Raises Refusal for every mistake of the user.

    Args:
        full: whether the help page explains every option.
    """

    def __init__(self, options: type[TrialOptions], full: bool) -> None:
        paragraphs = cleandoc(sys.modules[options.__module__].__doc__ or "").split("\n\n")
        super().__init__(
            usage="%(prog)s [options]",
            prog=" ".join(how_to_start()),
            description="\n\n".join(paragraphs if full else paragraphs[:2]),
            formatter_class=lambda prog: RawDescriptionHelpFormatter(prog, max_help_position=26, width=PAGE_WIDTH),
            allow_abbrev=False,
            add_help=False,
        )
        self.options, self.full = options, full
        own = cleandoc(options.__doc__ or options.__name__)
        hint = "" if full else f" (explained by {FULL})"
        self.groups = {title: self.add_argument_group(title) for title in (own, *GROUPS)}
        self.groups |= {title: self.add_argument_group(title + hint) for title in ONLY_NAMED}
        self.titles = {name: title for title, names in GROUPS.items() for name in names}
        self.titles |= dict.fromkeys(TrialOptions.model_fields, EVERY_TRIAL)
        self.titles |= dict.fromkeys(get_annotations(options), own)
        self.add_argument("-h", "--help", FULL, action="help", help=SUPPRESS)

    def add_field(self, *flags: str, **kwargs: Any) -> None:
        """Adds an option. pydantic-settings calls this method with the option's flags and arguments."""
        name = kwargs["dest"]
        field = self.options.model_fields[name]
        if not isinstance(field.default, bool):
            kwargs |= {"metavar": _metavar(field), "action": "store"}
        title = self.titles.get(name, HOW)
        group = self.groups[title]
        text = explanation(self.options, name)
        kwargs["help"] = (text if self.full else text.split("\n\n")[0]).replace("%", "%%")
        if title in ONLY_NAMED and not self.full:
            named = f"{group.description or ''}  {flags[-1]}\xa0{kwargs.get('metavar', '')}".strip()
            group.description = textwrap.fill(named.replace("\n", "  "), PAGE_WIDTH - 4, break_on_hyphens=False)
            kwargs["help"] = SUPPRESS
        group.add_argument(*flags, **kwargs)

    def format_help(self) -> str:
        return super().format_help().replace("\xa0", " ")

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        parsed, unknown = self.parse_known_args(args, namespace)
        if not unknown:
            return parsed
        if not unknown[0].startswith("-"):
            raise Refusal(f"unexpected argument {unknown[0]}: write lists without spaces, as in a,b,c")
        raise unknown_option(self, unknown[0], "--help lists all options")

    def error(self, message: str) -> NoReturn:
        raise Refusal(message.removeprefix("argument "))


def _metavar(field: FieldInfo) -> str:
    parts = (mark for part in get_args(field.annotation) for mark in getattr(part, "__metadata__", ()))
    written = [mark for mark in (*parts, *field.metadata) if isinstance(mark, Written)]
    choices = written[-1:] or _choices(field.annotation)
    assert choices, f"mark a field of type {field.annotation} with Written"
    return "|".join(choices)


def _choices(annotation: Any) -> list[str]:
    parts = get_args(annotation)
    if get_origin(annotation) is Literal:
        return list(map(str, parts))
    return [word for part in parts for word in _choices(part)]
