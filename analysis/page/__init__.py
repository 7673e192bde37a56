"""The report: one HTML page, images, tables, findings for programs."""
