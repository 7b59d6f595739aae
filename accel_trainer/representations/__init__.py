"""Features as arrays: how unlike images are by them, and how like that is to brains and people. No model is known
here."""
