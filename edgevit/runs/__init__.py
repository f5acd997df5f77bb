"""What long work keeps so that it can be interrupted and gone on with: folder, state, curves."""
