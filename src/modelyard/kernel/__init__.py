"""The kernel: what every room may use. It imports nothing of ours."""
