"""`python -m include.cli`, which is what the launcher script runs."""

from include.cli.group import evergreen

if __name__ == "__main__":
    evergreen(prog_name="evergreen")
