"""`headhunt serve`: searches, promotions and exports over HTTP, in front of Ray Jobs."""
