"""Deciding: what people see of sessions before they approve or reject them. They are decided in ``stores``."""
