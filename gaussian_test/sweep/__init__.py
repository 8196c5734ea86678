"""Many runs: what varies, running them, their folder, their status."""
