"""Where the metrics of a trial are read: Katib's kinds of metrics collectors, each a file."""
