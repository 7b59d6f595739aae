"""One `accelerate launch`: command, environment, supervision, outcome."""
