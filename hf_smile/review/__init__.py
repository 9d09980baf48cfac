"""Looking at the labels that are likely wrong, one picture at a time, and deciding.

opinions.py  what the audit and a model say of each image
queue.py     which picture comes when
session.py   what was decided: the file of corrections, and where the reviewer is
page.py      the page in the browser;  page.html, page.css, page.js: its template, style and script
"""
