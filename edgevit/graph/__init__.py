"""The graph that every part of edgevit works on."""
