"""Texts and pairs of sentences: MultiMNIST's texts, the corpus of section 11, a small grammar."""
