"""How fast it is: everything side by side in one process, alternating, and ratios first."""
