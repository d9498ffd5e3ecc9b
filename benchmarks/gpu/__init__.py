"""Benchmarks of the CUDA paths: rooflines on the card at hand."""
