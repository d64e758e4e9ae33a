"""MIR-L for PruneKit: lottery tickets of a multi-task image-restoration network (arXiv 2510.14463)."""
