"""The memories that S5 is compared with, under the same contract."""
