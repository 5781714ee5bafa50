"""Numbers per token of sentences, with <unk> and without it.

A word that a model does not know is the token <unk>. The more words are <unk>, the easier a sentence is to guess, so a
likelihood over all tokens improves when test words stop matching the training words. "Known" numbers leave <unk> out:
the sum of log p(token | z, tokens before) over all other tokens, stops included, and per token of these.

Shapes: N sentences, M languages.
"""

from collections.abc import Mapping

import numpy as np

from mvae.data.examples import Split
from mvae.data.sentences.sentences import Sentences

KNOWN = "_known"
"""Suffix of the names of numbers without <unk>: log_marginal_known."""


def sentences_in(split: Split, m: int) -> Sentences:
    """The sentences of a language of a split."""
    said = split.sentences[m]
    assert said is not None
    return said


def per_token(means: Mapping[str, float], split: Split) -> dict[str, float]:
    """test/log_marginal_per_token, log_x2_per_token and log_joint_per_token, by each proposal; stops count. Likewise
    test/log_marginal_known_per_token and so on, if `means` has numbers without <unk>.

    Args:
        means: over sentences, test/log_marginal, test/log_marginal-x1 and so on.
    """
    assert split.lengths is not None
    unknown = [sentences_in(split, m).unknown.cpu().numpy() for m in range(len(split.sentences))]
    found = {}
    for suffix, tokens in (("", split.lengths), (KNOWN, split.lengths - np.stack(unknown, axis=1))):
        counts = {"marginal": tokens[:, 0], "x2": tokens[:, 1:].sum(1), "joint": tokens.sum(1)}
        for kind, count in counts.items():
            for name in (f"test/log_{kind}{suffix}", f"test/log_{kind}{suffix}-x1"):
                if name in means:
                    found[f"{name}_per_token"] = means[name] / count.mean()
    return found
