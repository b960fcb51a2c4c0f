"""What watches Muelle: Prometheus' rules, and Grafana's dashboards as code. Not part of what is installed."""
