"""What other tools measured: tables of runs from their files, and which columns are what."""
