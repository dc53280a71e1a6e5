"""Rows to answers: a table in, a prompt over its columns, the same table out with the answers joined on."""
