"""Running commands: on this machine, and later on others."""
