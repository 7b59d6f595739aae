"""Jobs of the program that this one is modeled on, in the words of today."""
