"""The HTTP service: Flask under gunicorn, in front of the models of one folder."""
