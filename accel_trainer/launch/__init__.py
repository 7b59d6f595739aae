"""One `accelerate launch`: its command, environment, supervision and outcome. It knows no queue."""
