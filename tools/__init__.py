"""What `make` runs beside the tests; needs nothing installed."""
