"""Histories of the whole core from a seed: simulated venues, a faulty wire, clients, crashes, and what must hold."""
