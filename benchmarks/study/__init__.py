"""What the QIXAI paper claims and what it leaves open, measured; see README.md in this folder."""
