"""Structured pruning: which channels go together, which of them are worth least, and a network without those."""
