"""The report of an exploration: figures, page, tables and summary; `report.write_report` writes them all."""
