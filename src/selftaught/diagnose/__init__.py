"""Does it learn? Figures of features without labels, and the doctor that watches a training.

measures.rank(features)              # RankMe: how many dimensions are in use
Doctor(method, path, steps, batch)   # what `pretrain` has beside it
"""
