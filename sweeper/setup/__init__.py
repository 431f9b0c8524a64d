"""Before the first sweep: check the machine, fetch models and data."""
