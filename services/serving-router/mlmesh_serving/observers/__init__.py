"""What looks at predictions without being on their path: payload logging, drift and outlier detection."""
