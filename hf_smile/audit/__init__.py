"""The state of a data set before a minute is spent on training: duplicates, leaks, suspicious labels, odd pictures.

scan.py        one pass over the images: digest, perceptual hash and a few numbers of each
similarity.py  features -> nearest neighbours and clusters, block by block
duplicates.py  which images are the same picture, across splits and against each other's label
leakage.py     how much like the train images the test images are, and whether accuracy hangs on it
splits.py      a split no cluster straddles, and tables without leaks and conflicts
labels.py      labels that the images speak against
run.py         all of that in one call
report.py      audit.json, audit.md and the CSV lists
pictures.py    plots, and contact sheets of the findings
"""
