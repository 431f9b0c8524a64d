"""The Ray Tune driver: what it starts, retains and confirms."""
