"""Texts, and data sets of sentence pairs.

sentences.py         sentences in storage and in batches
text.py              texts as rows of tokens
translation.py       the corpus of section 11
toy_translation.py   sentences from a small grammar
"""
