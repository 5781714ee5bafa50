"""Texts and pairs of sentences.

sentences.py, text.py   sentences as stored and batched, tokens
translation.py, toy_translation.py   the corpus of section 11, a small grammar
"""
