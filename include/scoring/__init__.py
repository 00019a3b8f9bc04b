"""How good predictions are, how alike, and how sure that is: shared by all stages."""
