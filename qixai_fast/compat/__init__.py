"""Drop-ins: the names, signatures and values of other libraries, computed here.

``qixai_fast.compat.sklearn`` needs no scikit-learn to be installed, and imports none.
"""
