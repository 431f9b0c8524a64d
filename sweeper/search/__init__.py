"""All of Optuna: suggestions, studies, rounds. Empty, so that rounds are read without optuna."""
