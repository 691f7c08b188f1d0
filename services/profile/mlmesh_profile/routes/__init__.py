"""What the HTTP port serves, beside metrics and health."""
