"""Review of labels that are probably wrong, one image at a time.

opinions.py  label probabilities from the audit and from a model
queue.py     the order of the images
session.py   the decisions, the corrections file, and the reviewer's position
page.py      the page in the browser;  page.html, page.css, page.js: its template, style and script
"""
