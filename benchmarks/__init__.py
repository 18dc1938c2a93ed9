"""Measurements that anyone can run; nothing here ships in the wheel."""
