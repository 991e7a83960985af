"""Stage 4: any artifact in, figures and HTML out.

Reads whatever a run's folder contains and writes `report/index.html`, one self-contained page.
"""
