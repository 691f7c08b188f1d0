"""What explains predictions: methods in a process of their own that ask the predictor as any client does."""
