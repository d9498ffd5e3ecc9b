"""The audit as a person reads it: figures, and one self-contained page."""
