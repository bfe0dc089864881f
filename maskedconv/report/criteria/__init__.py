"""How our runs decide the paper's claims: one function for each criterion."""
