"""Helpers that all packages use: files, CPU cores, console, figures, Hub ids."""
