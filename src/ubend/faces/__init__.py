"""What a person sees: the only users of typer, rich and matplotlib."""
