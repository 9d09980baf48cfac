"""What every room uses: files, cores, console, figures, names on the Hub."""
