"""Run folders, ours and Ray Tune's, read into plain values and tables."""
