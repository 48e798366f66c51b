"""Generalization · sparse gradients (tag 3161372): rare gradients played to single weights (`coordinates`: F6, F7),
synthetic bags of words in which we decide which words mean something (`texts`) and real ones (`library`), networks on
both (`tasks`), what each penalty takes from rare and from frequent words (`shrinkage`), and the protocol (`study`)."""
