"""Workflows: the order of the steps. A file reads like the drawing of the lifecycle; `definitions` lists them."""
