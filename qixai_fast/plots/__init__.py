"""Figures of attributions: over an image, as bars, as coloured words; and the look all figures share."""
