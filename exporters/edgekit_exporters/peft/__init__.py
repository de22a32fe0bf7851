"""PEFT adapters: taken in, brought to plain B @ A, merged."""
