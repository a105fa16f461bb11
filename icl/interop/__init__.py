"""Hands models over to other software, in the formats that it reads."""
