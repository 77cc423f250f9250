"""What finance closes a month with: the export statement of a tenant, and a provider's own usage beside ours.

period      the month, day or year of a statement, in a time zone
basis       the sealed segments a statement rests on, and what is not sealed yet
statement   the figures of a statement, all of one moment; `statement_text` and `statement_html` write them

headers     what a provider calls the columns of its usage file
provider    such a file, line by line
attempts    what we have of the same: every attempt at a backend, the failed ones too
comparison  the two side by side, in a temporary database; `comparison_text` writes what it found
"""
