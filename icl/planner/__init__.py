"""What a train step will need and do on devices that are not there: compiled, read, and weighed."""
