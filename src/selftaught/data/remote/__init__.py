"""Data that lies in buckets, on servers and on the Hugging Face hub: read by ranges, a block at a
time, through one cache a machine."""
