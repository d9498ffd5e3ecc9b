"""Work on a GPU: what the families' CUDA paths have in common. Needs torch and numba-cuda once it is used."""
