"""Published experiments by one command each: ``s5-adapters reproduce NAME``."""
