"""Flask routes: HTTP only, one module a concern; `admission` holds what the prediction routes share."""
