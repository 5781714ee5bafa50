"""Computes likelihoods per token of sentences, with and without the token <unk>.

A word outside the model's vocabulary is the token <unk>. The more words are <unk>, the easier a sentence is to predict.
So a likelihood over all tokens improves if fewer test words are in the vocabulary. Numbers with "known"
in their name avoid this effect: they are means of log p(token | z, tokens before) over all tokens except <unk>. Stop
tokens are included.
"""

from collections.abc import Mapping

import numpy as np

from mvae.data.examples import Split
from mvae.data.sentences.sentences import Sentences
from mvae.measure import KNOWN


def sentences_in(split: Split, m: int) -> Sentences:
    """Returns a split's sentences in modality m."""
    sentences = split.sentences[m]
    assert sentences is not None
    return sentences


def per_token(means: Mapping[str, float], split: Split) -> dict[str, float]:
    """Returns test/log_marginal_per_token, test/log_x2_per_token and test/log_joint_per_token for each proposal.

    Stop tokens count as tokens. If `means` has numbers without <unk>, adds test/log_marginal_known_per_token and so on.

    Args:
        means: means over sentences: test/log_marginal, test/log_marginal-x1 and so on.
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
