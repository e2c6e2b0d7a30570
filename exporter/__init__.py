"""Prometheus exporter for the incremental backups of GaussDB(for MySQL) / TaurusDB."""

__version__ = "0.1.0"
