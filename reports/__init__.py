"""Exploration of recipes on targets, Pareto fronts, and the report.

Importing this package loads nothing heavy; the names live in its modules: `points` (what is kept), `store`, `explore`,
`pareto`, and `render` (figures, tables and the page).
"""
