"""Compiled inner loops. They know arrays and scalars only: no files, no torch, nothing else of ours."""
