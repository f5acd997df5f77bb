"""The commands of `edgevit`, one module each; torch is imported when a command runs."""
