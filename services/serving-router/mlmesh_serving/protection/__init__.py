"""What keeps backends, and those who ask them, from too much: limits, deadlines, breakers, retries, hedges, drains."""
