"""Run folders to tables and plots."""
