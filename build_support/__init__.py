"""What ``setup.py`` decides and how: importable, so that the decisions are tested."""
