"""The three parts of the Import & export page, and what they share."""
