"""Features as arrays: dissimilarities of what images evoke, and how alike two sets of them are; no model is known here."""
