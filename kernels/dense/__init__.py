"""Dense layers, normalisation, dropout, AdamW and matrix products, and the arrays that they work on, one file a
technology."""
