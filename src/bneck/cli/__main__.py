"""`python -m bneck.cli`, which `accelerate launch -m bneck.cli` starts on every process."""

from bneck.cli.main import run

if __name__ == "__main__":
    run()
