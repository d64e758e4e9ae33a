"""Whole networks on the sparse kernels: a traced graph, the maps in it, and plans that run them band by band."""
