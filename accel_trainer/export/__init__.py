"""A trained model in the forms in which others load it: a folder with weights, preprocessing, classes and a card."""
