"""`python -m bneck`."""

from bneck.cli.main import run

if __name__ == "__main__":
    run()
