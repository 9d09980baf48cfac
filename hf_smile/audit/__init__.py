"""Audit of a data set before training: duplicates, leaks, suspicious labels and unusual images.

scan.py        one pass over the images: digest, perceptual hash and a few measurements of each
similarity.py  nearest neighbours and clusters from features, block by block
duplicates.py  duplicates, across splits and with different labels
leakage.py     similarity of test images to train images, and its effect on the accuracy
splits.py      a group-disjoint split, and tables without leaks and conflicts
labels.py      labels that are probably wrong
run.py         the whole audit in one call
report.py      audit.json, audit.md and the CSV lists
pictures.py    plots, and contact sheets of the findings
"""
