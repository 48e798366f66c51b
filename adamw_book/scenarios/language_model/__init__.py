"""Frontier · language model: source text of Python's standard library, byte by byte (`text`), small transformers that
predict it (`tasks`), embedding rows that nothing reads (`rows`), what normalisation makes of the size of the weights
(`sizes`), outliers in weights and activations (`outliers`), the chapter's protocol (`study`), and that of a larger
model (`larger_gpt`)."""
