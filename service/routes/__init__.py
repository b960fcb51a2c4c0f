"""Flask routes: HTTP only, one module a concern."""
