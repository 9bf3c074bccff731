"""From a heap of images to a data set: what is copied, spoiled, unlike or too much of the same
leaves, with the reason; nothing is deleted.

pool = selftaught.Pool.scan("photos/", out="pool")
pool.filter().embed("runs/simclr-photos").dedup().balance(keep=10_000)
"""
