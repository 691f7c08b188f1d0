"""Worker processes: each holds a whole chain, and answers requests that the router hands it as bytes."""
