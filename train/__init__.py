"""Stage 3: Study in, ModelBundle out.

Reads the best trials of a study, fine-tunes backbone and head on augmented photos, and writes
`promotions/<number>/` and `exports/<number>/`.
"""
