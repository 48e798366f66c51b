"""Frontier · quantisation: does AdamW's decay leave weights that lose less when they are rounded to a few levels, or
clipped to a range that was preset?"""
