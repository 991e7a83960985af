"""What cached clean features say of the data: a linear probe, features that say nothing, policies that hurt."""
