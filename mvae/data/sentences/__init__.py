"""Texts, and data sets of sentence pairs.

sentences.py, text.py                sentences in storage and in batches; tokens
translation.py, toy_translation.py   the corpus of section 11; sentences from a small grammar
"""
