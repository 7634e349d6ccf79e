"""Readers and writers of data set layouts: ABAW challenges, AffectNet, folders and tables of pictures.

All of them stream.
"""
